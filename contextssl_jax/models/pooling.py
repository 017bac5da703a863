"""Max-pooling of a ResNet's stem, with a gradient that is fast on NVIDIA GPUs.

XLA implements the gradient as a scatter, which on GPUs writes five intermediate tensors of float32
and int32. There, this module saves the position of each maximum in one byte instead, and gathers.
"""

from itertools import product

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

_OFFSETS = tuple(product(range(3), range(3)))  # of a window's entries, in their order


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """Return the maxima of the 3x3 windows with stride 2, padded by one entry on every side.

    If a window has several maxima, its gradient goes to the first in row-major order.

    Args:
      x: [N, H, W, C]; H and W are even.

    Returns:
      [N, H / 2, W / 2, C].
    """
    return _pool(x)


def _pool(x: jax.Array) -> jax.Array:
    y: jax.Array = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    return y


def _forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    def elsewhere(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = _pool(x)
        return y, jnp.zeros(y.shape, jnp.int8)

    y, positions = lax.platform_dependent(x, cuda=_pool_with_positions, default=elsewhere)
    return y, (x, positions)


def _backward(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array]:
    def on_cuda(x: jax.Array, positions: jax.Array, g: jax.Array) -> jax.Array:
        del x
        return _gather_gradient(positions, g)

    def elsewhere(x: jax.Array, positions: jax.Array, g: jax.Array) -> jax.Array:
        del positions
        by_x: jax.Array = jax.vjp(_pool, x)[1](g)[0]
        return by_x

    return (lax.platform_dependent(*saved, g, cuda=on_cuda, default=elsewhere),)


max_pool.defvjp(_forward, _backward)


def _pool_with_positions(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the maxima and the indices of their offsets, int8."""
    lowest = jnp.array(-jnp.inf, x.dtype)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=lowest)
    h, w = x.shape[1:3]
    entries = [padded[:, i : i + h : 2, j : j + w : 2] for i, j in _OFFSETS]
    best, positions = entries[0], jnp.zeros(entries[0].shape, jnp.int8)
    for k, entry in enumerate(entries[1:], start=1):
        positions = jnp.where(entry > best, jnp.int8(k), positions)
        best = jnp.maximum(best, entry)
    return best, positions


def _gather_gradient(positions: jax.Array, g: jax.Array) -> jax.Array:
    """Return the gradient by the inputs as a sum of one shifted array per offset, in float32."""
    none = (0, 0, 0)
    total = None
    for k, (i, j) in enumerate(_OFFSETS):
        share = jnp.where(positions == k, g, 0).astype(jnp.float32)
        # Window m covers entries 2 m - 1 to 2 m + 1, so offset i of it is entry 2 m + i - 1.
        spread = lax.pad(share, jnp.float32(0), (none, (i - 1, 2 - i, 1), (j - 1, 2 - j, 1), none))
        total = spread if total is None else total + spread
    assert total is not None
    return total.astype(g.dtype)
