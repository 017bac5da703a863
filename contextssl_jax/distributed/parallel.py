"""Where arrays live and how a per-device function runs on all devices of all processes."""

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
MODES = ("auto", "jit", "pmap", "shard_map")


@dataclass(frozen=True)
class Parallel:
    """A way to run a function of (replicated state, sharded batch) on devices.

    Attributes:
      mode: "jit", one device; "pmap"; or "shard_map", the same function on a mesh.
      everyone: the devices of all processes, in their order; of "jit", the one.
    """

    mode: str
    everyone: tuple[jax.Device, ...]

    @property
    def devices(self) -> tuple[jax.Device, ...]:
        """This process's devices."""
        own = jax.process_index()
        return tuple(device for device in self.everyone if device.process_index == own)

    @property
    def axis(self) -> str | None:
        """Name of the axis over devices within the function; None on one device."""
        return None if self.mode == "jit" else AXIS

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compiles (state, batch) -> (state, metrics); the state is donated."""
        if self.mode == "jit":
            return jax.jit(function, donate_argnums=0)
        if self.mode == "pmap":
            return jax.pmap(function, AXIS, donate_argnums=0)
        replicated, sharded = PartitionSpec(), PartitionSpec(AXIS)
        # Without the check, a gradient of a replicated input stays this device's own, as in pmap.
        mapped = jax.shard_map(
            function,
            mesh=self._mesh,
            in_specs=(replicated, sharded),
            out_specs=replicated,
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=0)

    def shardings(self) -> tuple[Sharding, Sharding]:
        """Return where the state and the batch lie; for jit and shard_map."""
        if self.mode == "jit":
            return (SingleDeviceSharding(self.everyone[0]),) * 2
        specs = PartitionSpec(), PartitionSpec(AXIS)
        return tuple(NamedSharding(self._mesh, spec) for spec in specs)  # type: ignore[return-value]

    def replicate(self, tree: Any) -> Any:
        """Places a tree, the same on all processes, on every device."""
        if self.mode == "jit":
            return jax.device_put(tree, self.devices[0])
        if self.mode == "shard_map":
            return replicate_on(tree, self._mesh)
        sharding = NamedSharding(self._mesh, PartitionSpec(AXIS))

        def stack(leaf: Any) -> jax.Array:
            copies = [jax.device_put(leaf[None], device) for device in self.devices]
            shape = (len(copies), *leaf.shape)
            return jax.make_array_from_single_device_arrays(shape, sharding, copies)

        return jax.tree.map(stack, tree)

    def shard(self, tree: Any) -> Any:
        """Splits this process's host batch, leaves [B, ...], over its devices."""
        if self.mode == "jit":
            return jax.device_put(tree, self.devices[0])
        if self.mode == "pmap":  # its arrays have an axis of devices in front
            n = len(self.devices)
            tree = jax.tree.map(lambda leaf: leaf.reshape(n, -1, *leaf.shape[1:]), tree)
        sharding = NamedSharding(self._mesh, PartitionSpec(AXIS))
        place = functools.partial(jax.make_array_from_process_local_data, sharding)
        return jax.tree.map(place, tree)

    def local(self, tree: Any) -> Any:
        """Returns the replicated tree as it lies on this process's first device."""
        if self.mode == "jit":
            return tree
        shards = jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)
        return jax.tree.map(lambda leaf: leaf[0], shards) if self.mode == "pmap" else shards

    def whole(self, tree: Any) -> Any:
        """Returns the replicated tree as arrays that lie whole on devices of all processes."""
        if self.mode != "pmap":
            return tree
        return replicate_on(self.local(tree), make_mesh(self.everyone, AXIS))

    def fetch(self, tree: Any) -> Any:
        """Returns a replicated tree on the host, as NumPy arrays that later steps do not touch."""
        return jax.device_get(self.local(tree))

    @functools.cached_property
    def _mesh(self) -> Mesh:
        # pmap deals with this process's devices, a mesh with those of all processes.
        return make_mesh(self.everyone if self.mode == "shard_map" else self.devices, AXIS)


def make_mesh(devices: Sequence[jax.Device], axis: str) -> Mesh:
    """Returns the devices in a row, as an axis that the compiler may split arrays over."""
    return jax.make_mesh((len(devices),), (axis,), axis_types=(AxisType.Auto,), devices=devices)


def replicate_on(tree: Any, mesh: Mesh) -> Any:
    """Places a tree, the same on all processes, whole on every device of the mesh."""
    sharding = NamedSharding(mesh, PartitionSpec())

    def place(leaf: Any) -> jax.Array:
        copies = [jax.device_put(leaf, device) for device in mesh.local_devices]
        return jax.make_array_from_single_device_arrays(leaf.shape, sharding, copies)

    return jax.tree.map(place, tree)


def choose_parallel(
    mode: str, contexts: int, devices: Sequence[jax.Device] | None = None
) -> Parallel:
    """Chooses how to run on all devices.

    Args:
      mode: "auto" (jit on one device, else pmap), "jit", "pmap" or "shard_map".
      contexts: of a global batch, to be split evenly over all devices.
      devices: of all processes; None are all there are.

    Raises:
      UserError: an unknown mode, or contexts that the devices do not divide.
    """
    if mode not in MODES:
        raise UserError(f"train.parallel: {mode!r} is none of {MODES}")
    everyone = tuple(jax.devices() if devices is None else devices)
    if mode == "auto":
        mode = "jit" if len(everyone) == 1 else "pmap"
    if mode == "jit":
        if jax.process_count() > 1:
            raise UserError("train.parallel: 'jit' is for one device; use 'pmap' or 'shard_map'")
        return Parallel(mode, everyone[:1])
    if contexts % len(everyone):
        raise UserError(
            f"data.contexts: {contexts} contexts do not split over {len(everyone)} devices"
        )
    return Parallel(mode, everyone)
