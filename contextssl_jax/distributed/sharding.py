"""Optimizer state sharding (ZeRO-1, arXiv 1910.02054): a device updates a shard of the parameters.

Between steps, a device holds its shards of the parameters and of the optimizer's moments. A step
all-gathers the parameters, reduce-scatters the gradients, and updates the shards. An array of at
least two axes is split along its first axis whose size is a multiple of the number of shards. All
other arrays, which are few bytes, are replicated. With one shard, everything is.

The functions are those of one device of an axis; see collectives.py.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from contextssl_jax.distributed.collectives import sum_over

AXIS = "data"  # name of the axis over devices
GATHER = "gather_parameters"  # name scope of the gather


def split_axis(shape: tuple[int, ...], shards: int) -> int | None:
    """Return the axis along which an array of this shape is split; None if it is replicated."""
    if shards == 1 or len(shape) < 2:
        return None
    return next((axis for axis, size in enumerate(shape) if size and size % shards == 0), None)


def partition_specs(tree: Any, shards: int) -> Any:
    """Return the partition spec of every leaf of a tree of arrays or shapes."""

    def spec(leaf: Any) -> PartitionSpec:
        axis = split_axis(leaf.shape, shards)
        return PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, AXIS)

    return jax.tree.map(spec, tree)


def shard_shapes(tree: Any, shards: int) -> Any:
    """Return the shapes of one device's shards of a tree of arrays or shapes."""

    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        sizes = list(leaf.shape)
        if (axis := split_axis(leaf.shape, shards)) is not None:
            sizes[axis] //= shards
        return jax.ShapeDtypeStruct(tuple(sizes), leaf.dtype)

    return jax.tree.map(shape, tree)


def mean_shards(grads: Any, axis: str | None, shards: int, dtype: str = "float32") -> Any:
    """Return this device's shards of the mean gradient over the devices of the axis.

    Args:
      grads: this device's gradient, float32.
      axis: name of the axis, or None for one device.
      shards: 1, or the number of devices.
      dtype: the type in which devices exchange and sum the gradients.
    """
    if axis is None:
        return grads

    def mean(grad: jax.Array) -> jax.Array:
        split, sent = split_axis(grad.shape, shards), grad.astype(dtype)
        if split is None:
            total = sum_over(sent, axis)
        else:
            total = jax.lax.psum_scatter(sent, axis, scatter_dimension=split, tiled=True)
        return total.astype(grad.dtype) / jax.lax.axis_size(axis)

    return jax.tree.map(mean, grads)


def gather_shards(tree: Any, like: Any, axis: str | None, shards: int) -> Any:
    """Return the replicated tree, with the shapes of `like`, of which devices have the shards."""

    def gather(shard: jax.Array, whole: jax.Array) -> jax.Array:
        if (split := split_axis(whole.shape, shards)) is None:
            return shard
        return jax.lax.all_gather(shard, axis, axis=split, tiled=True)

    with jax.named_scope(GATHER):
        return jax.tree.map(gather, tree, like)


def norm_of_shards(tree: Any, like: Any, axis: str | None, shards: int) -> jax.Array:
    """Return the L2 norm of a tree, with the shapes of `like`, from this device's shards."""
    pairs = list(zip(jax.tree.leaves(tree), jax.tree.leaves(like), strict=True))
    split, whole = (
        [leaf for leaf, full in pairs if (split_axis(full.shape, shards) is None) == replicated]
        for replicated in (False, True)
    )
    squares = optax.tree.norm(whole, squared=True)
    if split:
        squares += sum_over(optax.tree.norm(split, squared=True), axis)
    return jnp.sqrt(squares)
