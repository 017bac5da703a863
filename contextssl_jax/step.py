"""One step of training: a pure function, written for one device of an axis."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from contextssl_jax.data.contexts import ContextBatch
from contextssl_jax.distributed.collectives import mean_over
from contextssl_jax.errors import UserError
from contextssl_jax.methods.base import Method, Metrics


@flax.struct.dataclass
class TrainState:
    """All that training changes; arrays only."""

    step: jax.Array  # steps taken, int32 []
    params: Any
    batch_stats: Any
    opt_state: Any

    @property
    def variables(self) -> dict[str, Any]:
        """What a method's functions read."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def init_state(
    key: jax.Array, batch: ContextBatch, *, method: Method, optimizer: optax.GradientTransformation
) -> TrainState:
    """Draws the state before the first step; the batch gives the shapes."""
    variables = method.init(key, batch)
    return TrainState(
        jnp.int32(0),
        variables["params"],
        variables["batch_stats"],
        optimizer.init(variables["params"]),
    )


def train_step(
    state: TrainState,
    batch: ContextBatch,
    *,
    key: jax.Array,
    method: Method,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    axis: str | None,
    parts: int = 1,
) -> tuple[TrainState, Metrics]:
    """Takes one step on this device's share of the global batch.

    In several parts, the update is that of the whole batch where the loss is a mean over contexts
    that do not meet: negatives from the context, and nothing with batch statistics, neither
    encoder nor projector nor VICReg's and SIE's terms. Else negatives and batch statistics are
    those of a part on all devices, and the running statistics move once a part. Metrics are means
    over the parts that tell them: those that are ratios, such as R² where parts show a group
    unequally often, are not quite the whole batch's.

    Gradients cross devices once; statistics, gathered negatives and metrics, once a part.

    Args:
      state: the same on every device.
      batch: B contexts.
      key: of the whole run; the step's own is folded from it.
      method: gives the loss.
      optimizer: turns the mean gradient over devices into an update.
      schedule: the learning rate by step, to be told.
      axis: name of the axis over devices, or None.
      parts: how many the share is split into along its contexts, a divisor of B. Their gradients
        are taken one after the other, in the memory of one part and one more gradient.

    Returns:
      The state after the step, and metrics of the parameters before it.
    """
    key = jax.random.fold_in(key, state.step)

    def gradient(batch_stats: Any, part: ContextBatch) -> tuple[Any, Any, Metrics]:
        # One key for all parts: what is random per context is keyed by its place in the batch.
        taken = jax.grad(method.loss, has_aux=True)(state.params, batch_stats, part, key)
        return taken[0], *taken[1]

    if parts == 1:
        grads, batch_stats, metrics = gradient(state.batch_stats, batch)
    else:
        grads, batch_stats, metrics = _over_parts(gradient, state, batch, parts)
    grads = mean_over(grads, axis)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    metrics |= {
        "gradient_norm": optax.tree.norm(grads),
        "learning_rate": schedule(state.step),
    }
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, batch_stats, opt_state), metrics


def check_parts(parts: int, share: int) -> None:
    """Checks that every device can take its contexts in so many parts.

    Args:
      parts: of each device's share.
      share: contexts of each device.

    Raises:
      UserError: the parts would not be equal.
    """
    if parts < 1 or share % parts:
        raise UserError(
            f"train.accumulate_steps: a device's {share} contexts do not split into {parts} equal"
            " parts; choose a divisor, or other data.contexts"
        )


def _over_parts(
    gradient: Callable[[Any, ContextBatch], tuple[Any, Any, Metrics]],
    state: TrainState,
    batch: ContextBatch,
    parts: int,
) -> tuple[Any, Any, Metrics]:
    """Returns the mean gradient, the statistics after the last part, and the mean metrics."""

    def add(carry: tuple[Any, Any], part: ContextBatch) -> tuple[tuple[Any, Any], Metrics]:
        total, batch_stats = carry
        grads, batch_stats, metrics = gradient(batch_stats, part)
        return (jax.tree.map(jnp.add, total, grads), batch_stats), metrics

    split = jax.tree.map(
        lambda leaf: leaf.reshape(parts, len(leaf) // parts, *leaf.shape[1:]), batch
    )
    start = jax.tree.map(jnp.zeros_like, state.params), state.batch_stats
    (total, batch_stats), metrics = jax.lax.scan(add, start, split)
    # NaN is a metric that a part cannot tell; but of the loss, it is what stops the run.
    means = {name: jnp.nanmean(values) for name, values in metrics.items()}
    means["loss"] = metrics["loss"].mean()
    return jax.tree.map(lambda leaf: leaf / parts, total), batch_stats, means
