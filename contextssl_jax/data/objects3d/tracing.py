"""Signed distances to objects, and sphere tracing of rays."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from contextssl_jax.data.objects3d.shapes import PARTS, RADIUS, Array, Shape

Vector = tuple[Array, Array, Array]  # x, y, z as separate arrays [N, M], pixels last

_STEPS = 18  # per ray; with more, fewer than 1 in 100 pixels differ visibly
_SHADOW_STEPS = 12
_STRIDE = 0.07  # minimum step towards the light, so that rays can pass parts that they graze
_FAR = 1e3


class Hit(NamedTuple):
    """The closest approach of rays to an object."""

    distance: jax.Array  # along the ray, [N, M]
    gap: jax.Array  # distance to the surface there, at most 0 on it, divided by `distance`, [N, M]


def distance(shape: Shape, p: Vector) -> jax.Array:
    """Return the signed distance from points [N, M] in the object's frame to the object, [N, M].

    It is exact outside a single part without taper, otherwise a lower bound.
    """
    nearest = _part_distance(_part(shape, 0), p)
    for i in range(1, PARTS):
        nearest = jnp.minimum(nearest, _part_distance(_part(shape, i), p))
    return nearest


def part_distances(shape: Shape, p: Vector) -> jax.Array:
    """Return signed distances from points [N, M] in the object's frame to each part, [P, N, M]."""
    by_part = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), shape)
    return jax.lax.map(lambda one: _part_distance(one, p), by_part)


def trace(shape: Shape, origin: Vector, direction: Vector) -> Hit:
    """Trace rays through the ball that contains the object (sphere tracing, Hart 1996).

    Args:
      shape: leaves [N, P, ...].
      origin: origins of the rays in the object's frame, [N, 1] or [N, M].
      direction: unit vectors, [N, M].
    """
    enter, leave = _ball(origin, direction, RADIUS)

    def step(k: int, carry: tuple[jax.Array, jax.Array, Hit]) -> tuple[jax.Array, jax.Array, Hit]:
        t, d, best = carry  # d is not yet known, and 0, at k = 0
        closer = (k > 0) & (d < best.gap * t)
        best = Hit(jnp.where(closer, t, best.distance), jnp.where(closer, d / t, best.gap))
        t = jnp.minimum(t + d, leave)
        return t, distance(shape, along(origin, direction, t)), best

    # The distance is the only expensive result, since XLA recomputes what several results share.
    start = enter, jnp.zeros_like(enter), Hit(enter, jnp.full_like(enter, _FAR))
    hit: Hit = jax.lax.fori_loop(0, _STEPS, step, start)[2]
    return hit._replace(gap=jnp.where(leave > enter, hit.gap, _FAR))


def visibility(shape: Shape, point: Vector, direction: Vector, softness: float) -> jax.Array:
    """Return the visible fraction of an extended light from points, in [0, 1], [N, M].

    Args:
      shape: leaves [N, P, ...].
      point: in the object's frame, [N, M].
      direction: unit vectors to the light's center, [N, 1].
      softness: tangent of the penumbra's angle.
    """
    # The penumbra extends beyond the object.
    enter, leave = _ball(point, direction, RADIUS + 2 * softness)
    start = jnp.maximum(enter, 0.03)

    def step(k: int, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        t, d, stride, seen = carry  # d is not yet known at k = 0
        # The intersection of two successive balls is closer to the ray's closest approach than
        # their centers, which avoids banding in the shadow (Aaltonen 2018).
        closing = (d > 0) & (d < stride)
        back = jnp.where(closing, d * d / (2 * stride), 0)
        aside = jnp.where(closing, jnp.sqrt(jnp.maximum(d * d - back * back, 1e-9)), d)
        seen = jnp.where(k > 0, jnp.minimum(seen, aside / jnp.maximum(t - back, 1e-2)), seen)
        stride = jnp.maximum(d, _STRIDE)
        t = jnp.minimum(t + jnp.where(k > 0, stride, 0), leave)
        return t, distance(shape, along(point, direction, t)), stride, seen

    far = jnp.full_like(start, _FAR)
    begin = start, jnp.zeros_like(start), jnp.ones_like(start), far
    seen = jax.lax.fori_loop(0, _SHADOW_STEPS, step, begin)[3]
    seen = jnp.where(leave > start, seen, _FAR)
    x = jnp.clip(0.5 + 0.5 * seen / softness, 0, 1)
    return x * x * (3 - 2 * x)


def normal(shape: Shape, p: Vector, width: jax.Array) -> Vector:
    """Return surface normals at points, by four distances; edges are smoothed over the width."""
    signs = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.float32)

    def probe(_: None, sign: jax.Array) -> tuple[None, jax.Array]:
        return None, distance(shape, along(p, (sign[0], sign[1], sign[2]), width))

    d = jax.lax.scan(probe, None, jnp.asarray(signs))[1]
    x, y, z = (sum(d[k] * signs[k, i] for k in range(4)) for i in range(3))
    scale = jax.lax.rsqrt(x * x + y * y + z * z + 1e-12)
    return x * scale, y * scale, z * scale


def along(origin: Vector, direction: Vector, t: jax.Array) -> Vector:
    """Return the points at distance t along rays."""
    x, y, z = (o + t * d for o, d in zip(origin, direction, strict=True))
    return x, y, z


def dot(a: Vector, b: Vector) -> jax.Array:
    """Return scalar products."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _ball(origin: Vector, direction: Vector, radius: float) -> tuple[jax.Array, jax.Array]:
    """Return the distances of entry and exit of a ball; exit < entry if the ray misses it."""
    along_ray = -dot(origin, direction)
    square = along_ray * along_ray - dot(origin, origin) + radius**2
    root = jnp.sqrt(jnp.maximum(square, 1e-6))
    return along_ray - root, jnp.where(square > 1e-6, along_ray + root, -_FAR)


def _part(shape: Shape, i: int) -> Shape:
    return Shape(*(leaf[:, i] for leaf in shape))


def _part_distance(part: Shape, p: Vector) -> jax.Array:
    """Return the signed distance [N, M] to one part, leaves [N, ...]."""

    def of(leaf: jax.Array) -> jax.Array:  # [N] -> [N, 1], beside pixels
        return leaf[:, None]

    x, y, z = (
        of(row[:, 0]) * p[0] + of(row[:, 1]) * p[1] + of(row[:, 2]) * p[2] + of(row[:, 3])
        for row in (part.frame[:, 0], part.frame[:, 1], part.frame[:, 2])
    )
    end = of(part.core[:, 1] + part.rounding)
    wide = 1 - of(part.taper) * (jnp.clip(y, -end, end) + end)
    turned = of(part.turned) > 0
    radial = jnp.sqrt(x * x + z * z + 1e-12) - of(part.ring) * wide
    a = jnp.abs(jnp.where(turned, radial, x)) - of(part.core[:, 0]) * wide
    b = jnp.abs(y) - of(part.core[:, 1])
    c = jnp.where(turned, -1.0, jnp.abs(z) - of(part.core[:, 2]) * wide)
    inside = jnp.minimum(jnp.maximum(jnp.maximum(a, b), c), 0)
    a, b, c = jnp.maximum(a, 0), jnp.maximum(b, 0), jnp.maximum(c, 0)
    d = jnp.sqrt(a * a + b * b + c * c + 1e-12) + inside - of(part.rounding)
    # Tapered sides are closer than at the same height.
    lean = part.taper * (part.core[:, 0] + part.core[:, 2] + part.ring)
    return d * of(jax.lax.rsqrt(1 + lean * lean))
