"""The optimizer and one training step: pure functions, written for one device of an axis."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from contextssl_jax.data.contexts import ContextBatch
from contextssl_jax.data.device_images import look_up
from contextssl_jax.distributed.sharding import (
    gather_shards,
    mean_shards,
    norm_of_shards,
    partition_specs,
)
from contextssl_jax.errors import UserError
from contextssl_jax.methods.base import Method, Metrics, Variables


@flax.struct.dataclass
class TrainState:
    """Everything that training changes; arrays only."""

    step: jax.Array  # steps taken, int32 []
    params: Any
    batch_stats: Any
    opt_state: Any

    @property
    def variables(self) -> dict[str, Any]:
        """The variables that a method's functions take."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def partition_state(state: TrainState, shards: int) -> TrainState:
    """Return the partition specs of a state whose parameters and moments are split into shards."""
    replicated: Any = PartitionSpec()
    params, opt_state = (partition_specs(tree, shards) for tree in (state.params, state.opt_state))
    return TrainState(replicated, params, replicated, opt_state)


def build_schedule(train: ConfigDict) -> optax.Schedule:
    """Return the learning rate by step: linear warm-up from 0, then cosine decay to 0.

    Args:
      train: the section, with `learning_rate` (the peak), `warmup_steps` and `steps`.
    """
    return optax.warmup_cosine_decay_schedule(
        0.0, train.learning_rate, warmup_steps(train), train.steps
    )


def warmup_steps(train: ConfigDict) -> int:
    """Return the steps of warm-up: a tenth of all if `warmup_steps` is not less than `steps`."""
    warmup: int = train.warmup_steps
    return warmup if warmup < train.steps else train.steps // 10


def build_optimizer(train: ConfigDict) -> optax.GradientTransformationExtraArgs:
    """Build the optimizer from the section `train`.

    "adam" adds the decay of all parameters to the gradient before the moments, as torch's Adam and
    the official code do; "adamw" decouples it (arXiv 1711.05101). All is elementwise, except for
    the clip, which takes the norm of the whole gradient as the argument `norm` of `update`.
    """
    moments = optax.scale_by_adam(train.beta1, train.beta2, eps=1e-8)
    decay = optax.add_decayed_weights(train.weight_decay)
    clip = _clip_by_norm(train.clip) if train.clip else optax.identity()
    order = {"adam": (decay, moments), "adamw": (moments, decay)}[train.optimizer]
    return optax.chain(clip, *order, optax.scale_by_learning_rate(build_schedule(train)))


def _clip_by_norm(largest: float) -> optax.GradientTransformationExtraArgs:
    """Scale gradients to a norm of `largest` if that of all shards, `norm`, is not below it."""

    def update(
        grads: Any, state: optax.EmptyState, params: Any = None, *, norm: jax.Array, **_: Any
    ) -> tuple[Any, optax.EmptyState]:
        below = norm < largest
        clipped = jax.tree.map(lambda grad: jnp.where(below, grad, grad / norm * largest), grads)
        return clipped, state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def init_state(
    key: jax.Array, batch: ContextBatch, *, method: Method, optimizer: optax.GradientTransformation
) -> TrainState:
    """Return the initial state; the batch gives the shapes."""
    return start_state(method.init(key, batch), optimizer)


def start_state(variables: Variables, optimizer: optax.GradientTransformation) -> TrainState:
    """Return the state of a run that starts from these variables: step 0, initial moments."""
    params = variables["params"]
    return TrainState(jnp.int32(0), params, variables["batch_stats"], optimizer.init(params))


def train_step(
    state: TrainState,
    batch: ContextBatch,
    key_data: jax.Array,
    images: jax.Array | None = None,
    *,
    method: Method,
    optimizer: optax.GradientTransformationExtraArgs,
    schedule: optax.Schedule,
    axis: str | None,
    parts: int = 1,
    whole_shapes: Callable[[], TrainState] | None = None,
    gradient_dtype: str = "float32",
) -> tuple[TrainState, Metrics]:
    """Take one step on this device's share of the global batch.

    With several parts, the update equals that of the whole batch if the loss is a mean over
    independent contexts: negatives from the context, and no batch statistics in the encoder, a
    projector, or VICReg's and SIE's terms. Otherwise negatives and batch statistics are those of
    one part on all devices, and running statistics are updated once per part. Metrics are means
    over the parts that determine them; ratios, such as R² if parts observe a group unequally
    often, differ slightly from the whole batch's.

    Gradients cross devices once; statistics, gathered negatives and metrics, once per part.

    Args:
      state: the same on every device, except for shards of parameters and moments.
      batch: B contexts.
      key_data: raw data of the key of the whole run, from which the step's key is folded. It is
        an argument, so that the compiled program is the same for all seeds.
      images: the table that the batch's records are indices of; None if they are the records.
      method: gives the loss.
      optimizer: turns the mean gradient over devices into an update, entry by entry; the norm of
        the gradient is the argument `norm` of its `update`.
      schedule: the learning rate by step, as a metric.
      axis: name of the axis over devices, or None.
      parts: number of parts that the share's contexts are split into, a divisor of B. Their
        gradients are computed in sequence, in the memory of one part and one more gradient.
      whole_shapes: returns the shapes of the state without sharding, if every device has shards of
        parameters and moments; see distributed/sharding.py. None if the state is replicated.
      gradient_dtype: the type in which devices exchange and sum gradients.

    Returns:
      The state after the step, and metrics of the parameters before it.
    """
    key = jax.random.fold_in(jax.random.wrap_key_data(key_data), state.step)
    shards = jax.lax.axis_size(axis) if axis and whole_shapes else 1
    shapes = whole_shapes().params if whole_shapes else state.params
    params = gather_shards(state.params, shapes, axis, shards)
    if images is not None:
        batch = look_up(images, batch)

    def gradient(batch_stats: Any, part: ContextBatch) -> tuple[Any, Any, Metrics]:
        # One key for all parts: randomness per context is keyed by its position in the batch.
        taken = jax.grad(method.loss, has_aux=True)(params, batch_stats, part, key)
        return taken[0], *taken[1]

    if parts == 1:
        grads, batch_stats, metrics = gradient(state.batch_stats, batch)
    else:
        start = jax.tree.map(jnp.zeros_like, params), state.batch_stats
        grads, batch_stats, metrics = _over_parts(gradient, start, batch, parts)
    grads = mean_shards(grads, axis, shards, gradient_dtype)
    norm = norm_of_shards(grads, params, axis, shards)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params, norm=norm)
    metrics |= {"gradient_norm": norm, "learning_rate": schedule(state.step)}
    updated = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, updated, batch_stats, opt_state), metrics


def check_parts(parts: int, share: int) -> None:
    """Check that every device can split its contexts into the given number of parts.

    Args:
      parts: of each device's share.
      share: number of contexts of each device.

    Raises:
      UserError: the parts would not be equal.
    """
    if share % parts:
        raise UserError(
            f"--config.train.accumulate_steps: a device's {share} contexts do not split into"
            f" {parts} equal parts. Choose a divisor, or a different --config.data.contexts."
        )


def _over_parts(
    gradient: Callable[[Any, ContextBatch], tuple[Any, Any, Metrics]],
    start: tuple[Any, Any],
    batch: ContextBatch,
    parts: int,
) -> tuple[Any, Any, Metrics]:
    """Return the mean gradient, the statistics after the last part, and the mean metrics.

    Args:
      gradient: (batch statistics, part) -> (gradient, batch statistics, metrics).
      start: zeros of the gradient, and the batch statistics before the first part.
      batch: B contexts.
      parts: a divisor of B.
    """

    def add(carry: tuple[Any, Any], part: ContextBatch) -> tuple[tuple[Any, Any], Metrics]:
        total, batch_stats = carry
        grads, batch_stats, metrics = gradient(batch_stats, part)
        return (jax.tree.map(jnp.add, total, grads), batch_stats), metrics

    split = jax.tree.map(
        lambda leaf: leaf.reshape(parts, len(leaf) // parts, *leaf.shape[1:]), batch
    )
    (total, batch_stats), metrics = jax.lax.scan(add, start, split)
    # A part reports NaN for metrics it cannot determine; a NaN loss must stop the run.
    means = {name: jnp.nanmean(values) for name, values in metrics.items()}
    means["loss"] = metrics["loss"].mean()
    return jax.tree.map(lambda leaf: leaf / parts, total), batch_stats, means
