"""An experiment: all objects that a config describes, built once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import grain
import jax
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.data import DATASETS
from contextssl_jax.data.contexts import context_batches, parse_environments
from contextssl_jax.data.dataset import Dataset
from contextssl_jax.data.device_images import index_images
from contextssl_jax.distributed.parallel import Parallel, choose_parallel
from contextssl_jax.errors import UserError, lookup
from contextssl_jax.methods import METHODS
from contextssl_jax.methods.base import Method, Metrics
from contextssl_jax.methods.rounding import round_embeddings
from contextssl_jax.models.packed import LANES, PACKING_DEVICES
from contextssl_jax.models.precision import train_precision, with_precision
from contextssl_jax.options import check_options
from contextssl_jax.progress import task
from contextssl_jax.step import (
    TrainState,
    build_optimizer,
    build_schedule,
    check_parts,
    init_state,
    partition_state,
    train_step,
)
from contextssl_jax.unoptimized import jit_unoptimized

_INIT, _STEP = range(2)  # streams of randomness
_MAX_PAIRS = 2**20  # of a global batch; 6 GB of CIFAR-10's images


@dataclass(frozen=True)
class Experiment:
    """The objects that training and evaluation use.

    Attributes:
      dataset: records, their transform parameters and rendering.
      method: the model and its loss.
      eval_method: the same model with the arithmetic of evaluation, `eval.dtype`.
      environments: observed groups, bool [G], by the environment's name.
      parallel: placement of arrays on devices.
      batches: this process's share of every global batch, host arrays, by step.
      init: returns the initial state, as host arrays.
      init_shapes: returns the shapes and types of the initial state, without computing it.
      key_data: raw data of the key of all steps' randomness, a host array.
      images: images of the train split that the records of `batches` are indices of, a host array;
        None if they are the records, see `data.on_device`.
      step: (state, batch, key_data, images) on the devices -> (state, metrics).
    """

    dataset: Dataset
    method: Method
    eval_method: Method
    environments: dict[str, np.ndarray]
    parallel: Parallel
    batches: grain.MapDataset
    init: Callable[[], TrainState]
    init_shapes: Callable[[], TrainState]
    key_data: np.ndarray
    images: np.ndarray | None
    step: Callable[..., tuple[TrainState, Metrics]]

    def template(self) -> TrainState:
        """Return a state of the right structure, shapes and types with undefined values."""
        return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), self.init_shapes())


def build_parallel(config: ConfigDict, devices: Sequence[jax.Device] | None = None) -> Parallel:
    """Choose how to run the config's step on all devices, or on those given.

    Raises:
      UserError: see `choose_parallel`.
    """
    partition = partition_state if config.train.shard_optimizer else None
    return choose_parallel(config.train.parallel, config.data.contexts, devices, partition)


def build_experiment(
    config: ConfigDict, dataset: Dataset | None = None, parallel: Parallel | None = None
) -> Experiment:
    """Build the experiment of a config; wrong options raise before any data is read.

    Args:
      config: the options.
      dataset: replaces the config's; a plan passes one without data.
      parallel: replaces the config's placement of arrays.

    Raises:
      UserError: an option is wrong, or the data set cannot be read.
    """
    check_options(config)
    _check_combinations(config.data, config.mask)
    observed = parse_environments(config.environments, config.groups, "--config.environments")
    build_method = lookup(METHODS, config.method, "--config.method")
    build_dataset = lookup(DATASETS, config.data.name, "--config.data.name").build
    parallel = parallel or build_parallel(config)
    precision = train_precision(config.model)
    check_parts(config.train.accumulate_steps, config.data.contexts // len(parallel.all_devices))
    optimizer, schedule = build_optimizer(config.train), build_schedule(config.train)
    with task("preparing the data set"):
        dataset = dataset or build_dataset(config)
    kind = parallel.all_devices[0].device_kind
    method = build_method(_with_packing(config, kind), dataset, parallel.axis)
    eval_config = config.copy_and_resolve_references()
    eval_config.model.dtype = config.eval.dtype
    eval_config.mask.context = config.eval.context_mask or config.mask.context
    make_batches = partial(
        context_batches,
        environments=observed,
        seed=config.seed,
        contexts=config.data.contexts,
        pairs=config.data.pairs,
        environment_per=config.data.environment_per,
        process=jax.process_index(),
        processes=jax.process_count(),
    )
    split, images = dataset.splits["train"], None
    first = jax.tree.map(lambda leaf: leaf[:1], make_batches(split)[0])
    if config.data.on_device:
        split, images = index_images(dataset)
    root = jax.random.key(config.seed)
    init = partial(with_precision(init_state, precision), method=method, optimizer=optimizer)
    init_arguments = jax.random.fold_in(root, _INIT), first
    init_shapes = partial(jax.eval_shape, init, *init_arguments)
    step = partial(
        with_precision(train_step, precision),
        method=method,
        optimizer=optimizer,
        schedule=schedule,
        axis=parallel.axis,
        parts=config.train.accumulate_steps,
        whole_shapes=init_shapes if parallel.shards > 1 else None,
        gradient_dtype=config.train.gradient_dtype,
    )
    return Experiment(
        dataset,
        method,
        round_embeddings(build_method(eval_config, dataset, None), config.eval.rounding),
        dict(zip(config.environments, observed, strict=True)),
        parallel,
        make_batches(split),
        lambda: jax.device_get(jit_unoptimized(init)(*init_arguments)),
        init_shapes,
        np.asarray(jax.random.key_data(jax.random.fold_in(root, _STEP))),
        images,
        parallel.compile(step),
    )


def _with_packing(config: ConfigDict, kind: str) -> ConfigDict:
    """Resolve `model.resnet.pack` for the train step on a kind of device."""
    resolved = config.copy_and_resolve_references()
    if config.model.resnet.pack == "auto":
        fast = kind in PACKING_DEVICES and config.model.dtype == "bfloat16"
        fills_lanes = 2 * config.model.resnet.width == LANES
        resolved.model.resnet.pack = "always" if fast and fills_lanes else "never"
    return resolved


def _check_combinations(data: ConfigDict, mask: ConfigDict) -> None:
    """Raise UserError for a batch that no host can hold, or an empty range of probabilities."""
    if data.contexts * data.pairs > _MAX_PAIRS:
        raise UserError(
            f"--config.data.contexts: must be at most {_MAX_PAIRS // data.pairs} with"
            f" --config.data.pairs={data.pairs}, not {data.contexts}. Decrease one of them."
        )
    if (mask.probability_low or 0) > mask.probability:
        raise UserError(
            f"--config.mask.probability_low: must be at most --config.mask.probability="
            f"{mask.probability}, not {mask.probability_low}. Decrease it."
        )
