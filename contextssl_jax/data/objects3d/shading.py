"""Shading: images of objects on a floor, under one light with a hue, direction and soft shadow.

Edges are smoothed over the width of a pixel instead of being supersampled: a ray that passes an
object within that distance is partially covered, and the colors and normals of adjacent parts
are blended.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from contextssl_jax.data.objects3d.shapes import Array, Shape
from contextssl_jax.data.objects3d.tracing import (
    Vector,
    along,
    dot,
    normal,
    part_distances,
    trace,
    visibility,
)
from contextssl_jax.transforms.quaternion import to_matrix

_FLOOR = -0.98  # height of the floor, below every object
_ELEVATION = np.deg2rad(40)  # elevation of the camera above the floor
_DISTANCE = 4.0  # distance of the camera from the origin
_VIEW = 0.275  # tangent of half the field of view
_AMBIENT = 0.28
_SOFTNESS = 0.16  # tangent of the penumbra's angle
_GAMMA = 1.8
_CPU_RAYS = 1 << 14  # rays per batch on a CPU, so that their state stays in its caches


class Scene(NamedTuple):
    """The parameters of N scenes."""

    rotation: Array  # unit quaternions, [N, 4]
    floor: Array  # cosine and sine of the floor's hue, [N, 2]
    light: Array  # cosine and sine of the light's hue, [N, 2]
    towards: Array  # x and y of the unit vector to the light, [N, 2]


def render(shape: Shape, scene: Scene, side: int, samples: int) -> jax.Array:
    """Render images, float32 [N, side, side, 3] in [0, 1].

    Args:
      shape: leaves [N, P, ...].
      scene: leaves [N, ...].
      side: side of the image in pixels.
      samples: rays per pixel along each axis.
    """
    n, few = len(scene.rotation), max(_CPU_RAYS // (side * samples) ** 2, 1)

    def in_parts(shape: Shape, scene: Scene) -> jax.Array:
        parts = jax.tree.map(lambda leaf: leaf.reshape(-1, few, *leaf.shape[1:]), (shape, scene))
        rendered = jax.lax.map(lambda part: _render_batch(part[0], part[1], side, samples), parts)
        return rendered.reshape(n, *rendered.shape[2:])

    def at_once(shape: Shape, scene: Scene) -> jax.Array:
        return _render_batch(shape, scene, side, samples)

    cpu = in_parts if n > few and n % few == 0 else at_once
    return jax.lax.platform_dependent(shape, scene, cpu=cpu, default=at_once)


def _render_batch(shape: Shape, scene: Scene, side: int, samples: int) -> jax.Array:
    """Render all images in one batch; see render."""
    eye, rays = _camera(side * samples)
    width = 2 * _VIEW / (side * samples)  # width of a pixel at distance 1
    to_light = _to_light(scene.towards)
    inward = _inward(scene.rotation)
    origin = _rotate(inward, (eye[:1, None], eye[1:2, None], eye[2:, None]))
    direction = _rotate(inward, (rays[:1], rays[1:2], rays[2:]))
    light_inside = _rotate(inward, to_light)

    hit = trace(shape, origin, direction)
    cover = _smooth(1 - hit.gap / width)
    surface = along(origin, direction, hit.distance)
    ground = along(origin, direction, ((_FLOOR - eye[2]) / rays[2])[None])
    edge = 0.5 * width * hit.distance
    facing = normal(shape, surface, edge)
    weights = _weights(shape, surface, edge)
    near = part_distances(shape, ground).min(0)
    lifted = along(surface, facing, 2 * edge)
    x, y, z = (jnp.where(cover > 0.5, a, b) for a, b in zip(lifted, ground, strict=True))
    seen = visibility(shape, (x, y, z), light_inside, _SOFTNESS)

    up = _rotate(inward, (jnp.zeros((1, 1)), jnp.zeros((1, 1)), jnp.ones((1, 1))))
    sky = 0.65 + 0.35 * dot(facing, up)
    lambert = jnp.maximum(dot(facing, light_inside), 0) * seen
    half = [a - b for a, b in zip(light_inside, direction, strict=True)]
    length = jax.lax.rsqrt(sum(h * h for h in half))
    shine = jnp.maximum(sum(n * h for n, h in zip(facing, half, strict=True)) * length, 0)
    gloss = 0.25 * shine**16 * seen
    overhead = seen * to_light[2]
    shade = _AMBIENT * (0.55 + 0.45 * _smooth(near / 0.6))

    def channel(colors: tuple[jax.Array, ...]) -> jax.Array:
        floor, cast, parts = colors
        paint = jnp.sum(weights * parts.T[:, :, None], axis=0)
        behind = floor * (shade + cast * overhead)
        front = paint * (_AMBIENT * sky + cast * lambert) + cast * gloss
        return jnp.clip(behind + cover * (front - behind), 1e-4, 1) ** (1 / _GAMMA)

    # A loop over channels, since XLA's CPU code is slow for interleaved results.
    colors = (
        _hue_color(scene.floor, 0.65, 0.8),
        _hue_color(scene.light, 0.6, 1.15),
        jnp.moveaxis(shape.color, -1, 0),
    )
    rays_of_pixels = jax.lax.map(channel, colors).reshape(3, -1, side, samples, side, samples)
    return jnp.moveaxis(rays_of_pixels.mean((3, 5)), 0, -1)


def _camera(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the camera's position [3] and the unit ray through each pixel, [3, side * side]."""
    back = np.array([np.cos(_ELEVATION), 0, np.sin(_ELEVATION)])
    right, up = np.array([0, 1, 0]), np.array([-back[2], 0, back[0]])
    grid = _VIEW * ((np.arange(side) + 0.5) / side * 2 - 1)
    rows, columns = np.meshgrid(-grid, grid, indexing="ij")
    rays = rows[..., None] * up + columns[..., None] * right - back
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    return (_DISTANCE * back).astype(np.float32), rays.reshape(-1, 3).T.astype(np.float32)


def _inward(rotation: jax.Array) -> tuple[Vector, Vector, Vector]:
    """Return the rows of the rotations from the world to the objects' frames, entries [N, 1]."""
    rows = to_matrix(rotation)
    x, y, z = (tuple(rows[c][r][:, None] for c in range(3)) for r in range(3))
    return x, y, z


def _rotate(rows: tuple[Vector, Vector, Vector], v: Vector) -> Vector:
    x, y, z = (dot(row, v) for row in rows)
    return x, y, z


def _to_light(towards: jax.Array) -> Vector:
    """Return unit vectors to the light, entries [N, 1]."""
    x, y = towards[:, :1], towards[:, 1:]
    return x, y, jnp.sqrt(jnp.maximum(1 - x * x - y * y, 1e-6))


def _hue_color(hue: jax.Array, saturation: float, value: float) -> jax.Array:
    """Convert hues, given by cosine and sine [N, 2], to RGB [3, N, 1].

    Sine waves replace the edges of HSV, so that the effect of a hue is uniform around the circle.
    """
    shifts = (np.arange(3) * 2 * np.pi / 3)[:, None, None]
    wave = hue[:, :1] * np.cos(shifts) + hue[:, 1:] * np.sin(shifts)
    return value * (1 - saturation * (0.5 - 0.5 * wave)).astype(jnp.float32)


def _weights(shape: Shape, surface: Vector, width: jax.Array) -> jax.Array:
    """Return the weight of each part at surface points, [P, N, M].

    Only the nearest part and others within the width have a weight.
    """
    distances = part_distances(shape, surface)
    weights = jnp.maximum(1 - (distances - distances.min(0)) / (2 * width), 0)
    return weights / weights.sum(0)


def _smooth(x: jax.Array) -> jax.Array:
    """Return the smoothstep of x from 0 to 1."""
    x = jnp.clip(x, 0, 1)
    return x * x * (3 - 2 * x)
