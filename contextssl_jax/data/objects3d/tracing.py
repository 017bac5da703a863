"""Signed distances to objects, and sphere tracing: how far along a ray the surface is."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from contextssl_jax.data.objects3d.shapes import PARTS, RADIUS, Array, Shape

Vector = tuple[Array, Array, Array]  # x, y, z apart: [N, M], pixels last

_STEPS = 18  # of a ray; with more, fewer than 1 in 100 pixels differ visibly
_SHADOW_STEPS = 12
_STRIDE = 0.07  # least step towards the light: rays that graze a part must get past it
_FAR = 1e3


class Hit(NamedTuple):
    """Where rays come nearest to an object."""

    distance: jax.Array  # along the ray, [N, M]
    gap: jax.Array  # from there to the surface, at most 0 on it; in units of distance, [N, M]


def distance(shape: Shape, p: Vector) -> jax.Array:
    """Signed distance from points [N, M] in the object's frame to the object, [N, M].

    It is exact outside of a single part that does not taper, else at most the distance.
    """
    nearest = _part_distance(_part(shape, 0), p)
    for i in range(1, PARTS):
        nearest = jnp.minimum(nearest, _part_distance(_part(shape, i), p))
    return nearest


def part_distances(shape: Shape, p: Vector) -> jax.Array:
    """Signed distances from points [N, M] in the object's frame to each part, [P, N, M]."""
    by_part = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), shape)
    return jax.lax.map(lambda one: _part_distance(one, p), by_part)


def trace(shape: Shape, origin: Vector, direction: Vector) -> Hit:
    """Follows rays through the ball that holds the object (sphere tracing, Hart 1996).

    Args:
      shape: leaves [N, P, ...].
      origin: of the rays, in the object's frame, [N, 1] or [N, M].
      direction: of length 1, [N, M].
    """
    enter, leave = _ball(origin, direction, RADIUS)

    def step(k: int, carry: tuple[jax.Array, jax.Array, Hit]) -> tuple[jax.Array, jax.Array, Hit]:
        t, d, best = carry  # at first d is not known, and 0
        closer = (k > 0) & (d < best.gap * t)
        best = Hit(jnp.where(closer, t, best.distance), jnp.where(closer, d / t, best.gap))
        t = jnp.minimum(t + d, leave)
        return t, distance(shape, along(origin, direction, t)), best

    # The loop's only expensive result is a distance: XLA works out anew what several results share.
    start = enter, jnp.zeros_like(enter), Hit(enter, jnp.full_like(enter, _FAR))
    hit: Hit = jax.lax.fori_loop(0, _STEPS, step, start)[2]
    return hit._replace(gap=jnp.where(leave > enter, hit.gap, _FAR))


def visibility(shape: Shape, point: Vector, direction: Vector, softness: float) -> jax.Array:
    """How much of a light of some width is seen from points, in [0, 1], [N, M].

    Args:
      shape: leaves [N, P, ...].
      point: in the object's frame, [N, M].
      direction: to the light's middle, of length 1, [N, 1].
      softness: tangent of the angle over which the light fades.
    """
    # Rays that pass an object are still a little shaded.
    enter, leave = _ball(point, direction, RADIUS + 2 * softness)
    start = jnp.maximum(enter, 0.03)

    def step(k: int, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        t, d, stride, seen = carry  # at first d is not known
        # Where two steps' balls meet is nearer to the ray's nearest point than their middles are,
        # which leaves no rings in the shadow (Aaltonen 2018).
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
    """The surface's direction near points, from four distances around; edges are as wide."""
    signs = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.float32)

    def probe(_: None, sign: jax.Array) -> tuple[None, jax.Array]:
        return None, distance(shape, along(p, (sign[0], sign[1], sign[2]), width))

    d = jax.lax.scan(probe, None, jnp.asarray(signs))[1]
    x, y, z = (sum(d[k] * signs[k, i] for k in range(4)) for i in range(3))
    scale = jax.lax.rsqrt(x * x + y * y + z * z + 1e-12)
    return x * scale, y * scale, z * scale


def along(origin: Vector, direction: Vector, t: jax.Array) -> Vector:
    """Points at distance t of rays."""
    x, y, z = (o + t * d for o, d in zip(origin, direction, strict=True))
    return x, y, z


def dot(a: Vector, b: Vector) -> jax.Array:
    """Scalar products."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _ball(origin: Vector, direction: Vector, radius: float) -> tuple[jax.Array, jax.Array]:
    """Where rays enter and leave a ball around the object; they miss it if the second is less."""
    along_ray = -dot(origin, direction)
    square = along_ray * along_ray - dot(origin, origin) + radius**2
    root = jnp.sqrt(jnp.maximum(square, 1e-6))
    return along_ray - root, jnp.where(square > 1e-6, along_ray + root, -_FAR)


def _part(shape: Shape, i: int) -> Shape:
    return Shape(*(leaf[:, i] for leaf in shape))


def _part_distance(part: Shape, p: Vector) -> jax.Array:
    """Signed distance [N, M] to one part, leaves [N, ...]."""

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
    # Sides that lean in are nearer than they are at the same height.
    lean = part.taper * (part.core[:, 0] + part.core[:, 2] + part.ring)
    return d * of(jax.lax.rsqrt(1 + lean * lean))
