"""Array placement, and execution of a per-device function on all devices of all processes."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import (
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    Sharding,
    SingleDeviceSharding,
)

from contextssl_jax.distributed.sharding import AXIS
from contextssl_jax.errors import UserError


@dataclass(frozen=True)
class Parallel:
    """Runs a function of (state, sharded batch, ...) on devices.

    Attributes:
      mode: "jit" (one device), "pmap", or "shard_map" (the same function on a mesh).
      all_devices: the devices of all processes, ordered by process; a single one for "jit".
      partition: returns the partition specs of a state from its shapes and the number of devices,
        for "shard_map" only; None if the state is replicated.
    """

    mode: str
    all_devices: tuple[jax.Device, ...]
    partition: Callable[[Any, int], Any] | None = None

    @property
    def local_devices(self) -> tuple[jax.Device, ...]:
        """The devices of this process."""
        process = jax.process_index()
        return tuple(device for device in self.all_devices if device.process_index == process)

    @property
    def axis(self) -> str | None:
        """Name of the device axis within the function; None on one device."""
        return None if self.mode == "jit" else AXIS

    @property
    def shards(self) -> int:
        """Number of shards that a split part of the state has; 1 if the state is replicated."""
        return len(self.all_devices) if self.partition else 1

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compile (state, batch, ...) -> (state, metrics).

        The state is donated. Arguments after the batch, and metrics, are replicated.
        """
        if self.mode == "jit":
            return jax.jit(function, donate_argnums=0)
        if self.mode == "pmap":
            return jax.pmap(function, AXIS, donate_argnums=0)
        replicated, sharded = PartitionSpec(), PartitionSpec(AXIS)

        @functools.wraps(function)
        def mapped(state: Any, batch: Any, *others: Any) -> Any:
            # check_vma=False: the gradient of a replicated input is not summed over devices, as in
            # pmap.
            specs = self._specs(state)
            return jax.shard_map(
                function,
                mesh=self._mesh,
                in_specs=(specs, sharded, *[replicated] * len(others)),
                out_specs=(specs, replicated),
                check_vma=False,
            )(state, batch, *others)

        return jax.jit(mapped, donate_argnums=0)

    def shardings(self, state: Any) -> tuple[Any, Sharding, Sharding]:
        """Return the shardings of a state's leaves, of a batch, and of replicated arguments.

        Not available for pmap.
        """
        if self.mode == "jit":
            device = SingleDeviceSharding(self.all_devices[0])
            return jax.tree.map(lambda leaf: device, state), device, device
        specs = jax.tree.broadcast(self._specs(state), state)
        return (
            jax.tree.map(functools.partial(NamedSharding, self._mesh), specs),
            NamedSharding(self._mesh, PartitionSpec(AXIS)),
            NamedSharding(self._mesh, PartitionSpec()),
        )

    def place(self, state: Any) -> Any:
        """Copy a host state, which is the same on all processes, to the devices.

        Every device receives its shards of what `partition` splits, and all of the rest.
        """
        if self.partition is None:
            return self.replicate(state)

        def place(leaf: Any, sharding: Sharding) -> jax.Array:
            return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

        return jax.tree.map(place, state, self.shardings(state)[0])

    def replicate(self, tree: Any) -> Any:
        """Copy a tree, which is the same on all processes, to every device."""
        if self.mode == "jit":
            return jax.device_put(tree, self.local_devices[0])
        if self.mode == "shard_map":
            return replicate_on(tree, self._mesh)
        sharding = NamedSharding(self._mesh, PartitionSpec(AXIS))

        def stack(leaf: Any) -> jax.Array:
            copies = [jax.device_put(leaf[None], device) for device in self.local_devices]
            shape = (len(copies), *leaf.shape)
            return jax.make_array_from_single_device_arrays(shape, sharding, copies)

        return jax.tree.map(stack, tree)

    def shard(self, tree: Any) -> Any:
        """Split this process's host batch, leaves [B, ...], over its devices."""
        if self.mode == "jit":
            return jax.device_put(tree, self.local_devices[0])
        if self.mode == "pmap":  # its arrays have a leading device axis
            n = len(self.local_devices)
            tree = jax.tree.map(lambda leaf: leaf.reshape(n, -1, *leaf.shape[1:]), tree)
        sharding = NamedSharding(self._mesh, PartitionSpec(AXIS))
        place = functools.partial(jax.make_array_from_process_local_data, sharding)
        return jax.tree.map(place, tree)

    def local_copy(self, tree: Any) -> Any:
        """Return one whole copy of a state's subtree or of metrics, on a device of this process.

        Every process must call this method, which gathers what `partition` splits.
        """
        if self.mode == "jit":
            return tree
        if self.partition:
            tree = self._gather(tree)
        shards = jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)
        return jax.tree.map(lambda leaf: leaf[0], shards) if self.mode == "pmap" else shards

    def global_arrays(self, tree: Any) -> Any:
        """Return a state as global arrays over all processes; with pmap, fully replicated."""
        if self.mode != "pmap":
            return tree
        return replicate_on(self.local_copy(tree), make_mesh(self.all_devices, AXIS))

    def fetch(self, tree: Any) -> Any:
        """Copy a state or metrics to the host, as NumPy arrays that later steps do not modify.

        Every process receives the whole arrays, and must call this method.
        """
        if self.partition is None:
            return jax.device_get(self.local_copy(tree))
        return jax.tree.map(fetch_leaf, tree)

    def _specs(self, state: Any) -> Any:
        """Return the partition specs of a state, a prefix of its tree."""
        return self.partition(state, self.shards) if self.partition else PartitionSpec()

    @functools.cached_property
    def _gather(self) -> Callable[[Any], Any]:
        replicated = NamedSharding(self._mesh, PartitionSpec())
        return jax.jit(lambda tree: tree, out_shardings=replicated)

    @functools.cached_property
    def _mesh(self) -> Mesh:
        # pmap uses the devices of this process; shard_map uses those of all processes.
        return make_mesh(self.all_devices if self.mode == "shard_map" else self.local_devices, AXIS)


def make_mesh(devices: Sequence[jax.Device], axis: str) -> Mesh:
    """Return a mesh of one axis over the devices, in their order."""
    return jax.make_mesh((len(devices),), (axis,), axis_types=(AxisType.Auto,), devices=devices)


def replicate_on(tree: Any, mesh: Mesh) -> Any:
    """Copy a tree, which is the same on all processes, to every device of the mesh."""
    sharding = NamedSharding(mesh, PartitionSpec())

    def place(leaf: Any) -> jax.Array:
        copies = [jax.device_put(leaf, device) for device in mesh.local_devices]
        return jax.make_array_from_single_device_arrays(leaf.shape, sharding, copies)

    return jax.tree.map(place, tree)


def fetch_leaf(leaf: Any) -> np.ndarray:
    """Copy a global array of all processes, or an array of this host, to the host.

    Every process must call this function. A device holds one whole array at a time.
    """
    if isinstance(leaf, jax.Array):
        if leaf.is_fully_replicated:
            leaf = leaf.addressable_data(0)
        elif not leaf.is_fully_addressable:
            leaf = multihost_utils.process_allgather(leaf, tiled=True)
    array: np.ndarray = jax.device_get(leaf)
    return array


def choose_parallel(
    mode: str,
    contexts: int,
    devices: Sequence[jax.Device] | None = None,
    partition: Callable[[Any, int], Any] | None = None,
) -> Parallel:
    """Choose how to run the step on all devices.

    Args:
      mode: "auto" (jit on one device, else shard_map), "jit", "pmap" or "shard_map".
      contexts: number of contexts in a global batch, which are split evenly over all devices.
      devices: the devices of all processes; None for all that JAX finds.
      partition: see Parallel; ignored unless the mode is shard_map on several devices.

    Raises:
      UserError: the number of contexts is not divisible by the number of devices, or there are
        several processes with "jit".
    """
    all_devices = tuple(jax.devices() if devices is None else devices)
    if mode == "auto":
        mode = "jit" if len(all_devices) == 1 else "shard_map"
    if mode == "jit":
        if jax.process_count() > 1:
            raise UserError(
                "--config.train.parallel: 'jit' uses one device, but there are"
                f" {jax.process_count()} processes. Use 'pmap' or 'shard_map'."
            )
        return Parallel(mode, all_devices[:1])
    if contexts % len(all_devices):
        raise UserError(
            f"--config.data.contexts: {contexts} is not divisible by the number of devices,"
            f" {len(all_devices)}. Choose a multiple of it, or use fewer devices."
        )
    splits = mode == "shard_map" and len(all_devices) > 1
    return Parallel(mode, all_devices, partition if splits else None)
