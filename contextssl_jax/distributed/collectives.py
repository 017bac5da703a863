"""What crosses devices, in a function written per device; with axis None there is one device."""

from typing import TypeVar

import jax

T = TypeVar("T")


def mean_over(tree: T, axis: str | None) -> T:
    """Returns the mean of every leaf over the devices of the axis."""
    return tree if axis is None else jax.lax.pmean(tree, axis)


def sum_over(tree: T, axis: str | None) -> T:
    """Returns the sum of every leaf over the devices of the axis."""
    return tree if axis is None else jax.lax.psum(tree, axis)


def gather_over(x: jax.Array, axis: str | None) -> jax.Array:
    """Concatenates x [n, ...] of all devices in the axis' order, [devices * n, ...]."""
    return x if axis is None else jax.lax.all_gather(x, axis, tiled=True)


def axis_offset(n: int, axis: str | None) -> jax.Array | int:
    """Returns where this device's n rows start in the gathered array."""
    return 0 if axis is None else jax.lax.axis_index(axis) * n
