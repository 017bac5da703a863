"""An experiment: everything that a config stands for, built once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import grain
import jax
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.data import DATASETS
from contextssl_jax.data.contexts import ContextBatch, context_batches, parse_environments
from contextssl_jax.data.dataset import Dataset
from contextssl_jax.distributed.parallel import Parallel, choose_parallel
from contextssl_jax.errors import UserError, lookup
from contextssl_jax.methods import METHODS
from contextssl_jax.methods.base import Method, Metrics
from contextssl_jax.optimizer import build_optimizer, build_schedule
from contextssl_jax.step import TrainState, check_parts, init_state, train_step

_INIT, _STEP = range(2)  # streams of randomness


@dataclass(frozen=True)
class Experiment:
    """What training and evaluation work with.

    Attributes:
      dataset: records, latents and how they are rendered.
      method: the model and its loss.
      environments: shown groups, bool [G], by the environment's name.
      parallel: where arrays live.
      batches: this process's share of every global batch, host arrays, by step.
      init: draws the state before the first step, as host arrays.
      step: (state, batch) on the devices to the same and metrics.
    """

    dataset: Dataset
    method: Method
    environments: dict[str, np.ndarray]
    parallel: Parallel
    batches: grain.MapDataset
    init: Callable[[], TrainState]
    step: Callable[[TrainState, ContextBatch], tuple[TrainState, Metrics]]

    def template(self) -> TrainState:
        """Returns a state of the right structure, shapes and types, its values undefined."""
        shapes = jax.eval_shape(self.init)
        return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)


def build_experiment(
    config: ConfigDict, dataset: Dataset | None = None, parallel: Parallel | None = None
) -> Experiment:
    """Builds the experiment of a config; option mistakes show before any data is read.

    Args:
      config: the options.
      dataset: in place of the config's; a plan's has no data.
      parallel: where arrays live, in place of what the config says.

    Raises:
      UserError: an option is wrong, or the data set is out of reach.
    """
    shown = parse_environments(config.environments, config.groups)
    if config.data.environment_per not in ("context", "batch", "all"):
        raise UserError(
            f"data.environment_per: {config.data.environment_per!r} is none of context, batch, all"
        )
    build_method = lookup(METHODS, config.method, "method")
    build_dataset = lookup(DATASETS, config.data.name, "data.name")
    parallel = parallel or choose_parallel(config.train.parallel, config.data.contexts)
    check_parts(config.train.accumulate_steps, config.data.contexts // len(parallel.all_devices))
    optimizer, schedule = build_optimizer(config.train), build_schedule(config.train)
    dataset = dataset or build_dataset(config)
    method = build_method(config, dataset, parallel.axis)
    batches = context_batches(
        dataset.splits["train"],
        shown,
        seed=config.seed,
        contexts=config.data.contexts,
        pairs=config.data.pairs,
        environment_per=config.data.environment_per,
        process=jax.process_index(),
        processes=jax.process_count(),
    )
    root = jax.random.key(config.seed)
    init = partial(
        init_state,
        jax.random.fold_in(root, _INIT),
        jax.tree.map(lambda leaf: leaf[:1], batches[0]),
        method=method,
        optimizer=optimizer,
    )
    step = partial(
        train_step,
        key=jax.random.fold_in(root, _STEP),
        method=method,
        optimizer=optimizer,
        schedule=schedule,
        axis=parallel.axis,
        parts=config.train.accumulate_steps,
    )
    return Experiment(
        dataset,
        method,
        dict(zip(config.environments, shown, strict=True)),
        parallel,
        batches,
        lambda: jax.device_get(jax.jit(init)()),
        parallel.compile(step),
    )
