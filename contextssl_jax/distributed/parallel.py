"""Array placement, and execution of a per-device function on all devices of all processes."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import (
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    Sharding,
    SingleDeviceSharding,
)

from contextssl_jax.errors import UserError

AXIS = "data"


@dataclass(frozen=True)
class Parallel:
    """Runs a function of (replicated state, sharded batch, ...) on devices.

    Attributes:
      mode: "jit" (one device), "pmap", or "shard_map" (the same function on a mesh).
      all_devices: the devices of all processes, ordered by process; a single one for "jit".
    """

    mode: str
    all_devices: tuple[jax.Device, ...]

    @property
    def local_devices(self) -> tuple[jax.Device, ...]:
        """The devices of this process."""
        process = jax.process_index()
        return tuple(device for device in self.all_devices if device.process_index == process)

    @property
    def axis(self) -> str | None:
        """Name of the device axis within the function; None on one device."""
        return None if self.mode == "jit" else AXIS

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compile (state, batch, ...) -> (state, metrics).

        The state is donated. Arguments after the batch are replicated like the state.
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
            return jax.shard_map(
                function,
                mesh=self._mesh,
                in_specs=(replicated, sharded, *[replicated] * len(others)),
                out_specs=replicated,
                check_vma=False,
            )(state, batch, *others)

        return jax.jit(mapped, donate_argnums=0)

    def shardings(self) -> tuple[Sharding, Sharding]:
        """Return the shardings of the state and of the batch. Not available for pmap."""
        if self.mode == "jit":
            return (SingleDeviceSharding(self.all_devices[0]),) * 2
        specs = PartitionSpec(), PartitionSpec(AXIS)
        return tuple(NamedSharding(self._mesh, spec) for spec in specs)  # type: ignore[return-value]

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
        """Return this process's first copy of a replicated tree, on its device."""
        if self.mode == "jit":
            return tree
        shards = jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)
        return jax.tree.map(lambda leaf: leaf[0], shards) if self.mode == "pmap" else shards

    def fully_replicated(self, tree: Any) -> Any:
        """Return a replicated tree as global arrays, fully replicated over all processes."""
        if self.mode != "pmap":
            return tree
        return replicate_on(self.local_copy(tree), make_mesh(self.all_devices, AXIS))

    def fetch(self, tree: Any) -> Any:
        """Copy a replicated tree to the host, as NumPy arrays that later steps do not modify."""
        return jax.device_get(self.local_copy(tree))

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


def choose_parallel(
    mode: str, contexts: int, devices: Sequence[jax.Device] | None = None
) -> Parallel:
    """Choose how to run the step on all devices.

    Args:
      mode: "auto" (jit on one device, else pmap), "jit", "pmap" or "shard_map".
      contexts: number of contexts in a global batch, which are split evenly over all devices.
      devices: the devices of all processes; None for all that JAX finds.

    Raises:
      UserError: the number of contexts is not divisible by the number of devices, or there are
        several processes with "jit".
    """
    all_devices = tuple(jax.devices() if devices is None else devices)
    if mode == "auto":
        mode = "jit" if len(all_devices) == 1 else "pmap"
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
    return Parallel(mode, all_devices)
