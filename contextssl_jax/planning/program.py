"""The traced training step of a config, for any number of devices, from shapes only."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
from jax.sharding import Sharding
from ml_collections import ConfigDict

from contextssl_jax.errors import UserError
from contextssl_jax.experiment import Experiment, build_experiment, build_parallel
from contextssl_jax.planning.dummy_datasets import dummy_dataset
from contextssl_jax.step import TrainState


@dataclass(frozen=True)
class Program:
    """A traced training step and the shapes of its inputs.

    Attributes:
      config: the options.
      devices: number of devices that the global batch is split over.
      experiment: the experiment of the config, with a dummy data set.
      state: shapes of the state, of which each device has the shards of sharding.py.
      batch: shapes of the global batch.
      traced: the traced step (jax.stages.Traced).
    """

    config: ConfigDict
    devices: int
    experiment: Experiment
    state: TrainState
    batch: Any
    traced: Any

    @property
    def parts(self) -> dict[str, str]:
        """Names of the method's parts by the name scopes of their Flax modules."""
        modules = self.experiment.method.modules
        return {type(module).__name__: part for part, module in modules.items()}

    @property
    def accumulate_steps(self) -> int:
        """Number of sequential chunks into which a device splits its contexts."""
        return self.config.train.accumulate_steps


def build_program(
    config: ConfigDict, devices: int, chips: Sequence[jax.Device] | None = None
) -> Program:
    """Trace the training step for CPU devices of this host, or for other chips.

    Args:
      config: the options.
      devices: number of devices that the global batch is split over.
      chips: the devices, which may be abstract (see targets.py); None for emulated CPU devices.

    Raises:
      UserError: an option is invalid, or a run cannot use this number of devices.
    """
    if devices > 1 and config.train.parallel == "jit":
        raise UserError(
            f"--config.train.parallel: 'jit' uses one device, but --devices is {devices}. Use"
            " 'auto', 'pmap' or 'shard_map'."
        )
    all_devices = host_devices(devices) if chips is None else chips
    parallel = build_parallel(config, all_devices)
    # pmap is implemented as shard_map, which can be compiled from shapes only.
    parallel = replace(parallel, mode="shard_map" if devices > 1 else "jit")
    without_images = config.copy_and_resolve_references()
    without_images.data.on_device = False  # the number of images is not known without the data
    experiment = build_experiment(without_images, dummy_dataset(config), parallel)
    state = experiment.init_shapes()
    batch = jax.eval_shape(lambda: experiment.batches[0])
    key_data = jax.eval_shape(lambda: experiment.key_data)
    if chips is not None:
        state_shardings, sharded, replicated = parallel.shardings(state)
        state = jax.tree.map(_with_sharding, state, state_shardings)
        batch = jax.tree.map(functools.partial(_with_sharding, sharding=sharded), batch)
        key_data = _with_sharding(key_data, replicated)
    traced = experiment.step.trace(state, batch, key_data)  # type: ignore[attr-defined]
    return Program(config, devices, experiment, state, batch, traced)


def _with_sharding(leaf: Any, sharding: Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def host_devices(count: int) -> tuple[jax.Device, ...]:
    """Return CPU devices of this process, without initializing accelerators.

    Raises:
      UserError: JAX is already initialized with fewer CPU devices.
    """
    try:
        jax.config.update("jax_num_cpu_devices", count)
        jax.config.update("jax_platforms", "cpu")
    except RuntimeError:  # JAX is already initialized
        pass
    devices = tuple(jax.devices("cpu"))
    if len(devices) < count:
        raise UserError(
            f"--devices: JAX is already initialized with {len(devices)} CPU devices, not {count}."
            " Run the plan in a new process."
        )
    return devices[:count]
