"""Collectives of a per-device function. With axis None, which means one device, they are no-ops."""

from typing import TypeVar

import jax

T = TypeVar("T")


def mean_over(tree: T, axis: str | None) -> T:
    """Return the mean of every leaf over the devices of the axis."""
    return tree if axis is None else jax.lax.pmean(tree, axis)


def sum_over(tree: T, axis: str | None) -> T:
    """Return the sum of every leaf over the devices of the axis."""
    return tree if axis is None else jax.lax.psum(tree, axis)


def gather_over(x: jax.Array, axis: str | None) -> jax.Array:
    """Concatenate x [n, ...] of all devices, in the order of the axis: [devices * n, ...]."""
    return x if axis is None else jax.lax.all_gather(x, axis, tiled=True)


def axis_offset(n: int, axis: str | None) -> jax.Array | int:
    """Return the index of this device's first row in the gathered array of n rows per device."""
    return 0 if axis is None else jax.lax.axis_index(axis) * n
