"""A config's training step as a program for any number of devices, without data or values."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
from jax.sharding import Sharding
from ml_collections import ConfigDict

from contextssl_jax.distributed.parallel import choose_parallel
from contextssl_jax.errors import UserError
from contextssl_jax.experiment import Experiment, build_experiment
from contextssl_jax.planning.dummy_datasets import dummy_dataset
from contextssl_jax.step import TrainState


@dataclass(frozen=True)
class Program:
    """The step and the shapes that it works on.

    Attributes:
      config: the options.
      devices: that the global batch is split over.
      experiment: what the config stands for, its data set a stand-in.
      state: shapes of the state, the same on every device.
      batch: shapes of the global batch.
      traced: the step, to be lowered and compiled (jax.stages.Traced).
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
    def turns(self) -> int:
        """In how many turns a device takes its contexts."""
        return self.config.train.accumulate_steps


def build_program(
    config: ConfigDict, devices: int, chips: Sequence[jax.Device] | None = None
) -> Program:
    """Trace the step for so many CPU devices of this host, however many it has, or for chips.

    Args:
      config: the options.
      devices: that the global batch is split over.
      chips: the devices, which may be mere descriptions (see targets.py); None for the CPU's.

    Raises:
      UserError: an option is wrong, or a run could not use so many devices.
    """
    if devices > 1 and config.train.parallel == "jit":
        raise UserError(f"train.parallel: 'jit' is for one device, and --devices is {devices}")
    chosen = host_devices(devices) if chips is None else chips
    place = choose_parallel(config.train.parallel, config.data.contexts, chosen)
    # pmap is shard_map underneath, which unlike it is compiled from shapes alone.
    place = replace(place, mode="shard_map" if devices > 1 else "jit")
    experiment = build_experiment(config, dummy_dataset(config), place)
    state = jax.eval_shape(experiment.init)
    batch = jax.eval_shape(lambda: experiment.batches[0])
    if chips is not None:
        state, batch = map(_placed, (state, batch), place.shardings())
    traced = experiment.step.trace(state, batch)  # type: ignore[attr-defined]
    return Program(config, devices, experiment, state, batch, traced)


def _placed(shapes: Any, sharding: Sharding) -> Any:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes
    )


def host_devices(count: int) -> tuple[jax.Device, ...]:
    """Returns CPU devices of this process, and leaves accelerators alone.

    Raises:
      UserError: JAX has already started, with fewer.
    """
    try:
        jax.config.update("jax_num_cpu_devices", count)
        jax.config.update("jax_platforms", "cpu")
    except RuntimeError:  # it has started
        pass
    devices = tuple(jax.devices("cpu"))
    if len(devices) < count:
        raise UserError(f"--devices: {count}, but JAX has already started with {len(devices)}")
    return devices[:count]
