"""One step of training: a pure function, written for one device of an axis."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from contextssl_jax.collectives import mean_over
from contextssl_jax.data.contexts import ContextBatch
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
) -> tuple[TrainState, Metrics]:
    """Takes one step on this device's share of the global batch.

    Args:
      state: the same on every device.
      batch: B contexts.
      key: of the whole run; the step's own is folded from it.
      method: gives the loss.
      optimizer: turns the mean gradient over devices into an update.
      schedule: the learning rate by step, to be told.
      axis: name of the axis over devices, or None.

    Returns:
      The state after the step, and metrics of the parameters before it.
    """
    gradient = jax.value_and_grad(method.loss, has_aux=True)
    (_, (batch_stats, metrics)), grads = gradient(
        state.params, state.batch_stats, batch, jax.random.fold_in(key, state.step)
    )
    grads = mean_over(grads, axis)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    metrics |= {
        "gradient_norm": optax.tree.norm(grads),
        "learning_rate": schedule(state.step),
    }
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, batch_stats, opt_state), metrics
