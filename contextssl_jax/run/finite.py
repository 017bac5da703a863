"""Detection of losses, gradients and states that are not finite, and of batches that cause them."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class NonFiniteError(ArithmeticError):
    """A loss, a gradient or the state is not finite. `step` is the first such step."""

    def __init__(self, step: int, name: str, value: float) -> None:
        super().__init__(f"step {step}: {name} is {value}")
        self.step = step


def check_finite(step: int, state: Any) -> None:
    """Check that all values of a state are finite, on the devices that hold it.

    Raises:
      NonFiniteError: a leaf has a value that is not finite.
    """
    finite = jax.device_get(_are_finite(state))
    for path, is_finite in jax.tree_util.tree_leaves_with_path(finite):
        if not is_finite:
            raise NonFiniteError(step, f"state{jax.tree_util.keystr(path)}", math.nan)


def explain_batch(step: int, batch: Any) -> str:
    """Return whether the batch of a step is the cause of a non-finite loss, and what to do."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        if np.issubdtype(leaf.dtype, np.floating) and not np.isfinite(leaf).all():
            context = np.argwhere(~np.isfinite(leaf))[0][0]
            return (
                f"The batch of step {step} is not finite either:"
                f" {jax.tree_util.keystr(path).strip('.')} of context {context}. Fix the data and"
                " use a different --workdir."
            )
    return (
        f"The batch of step {step} is finite. Try a smaller --config.train.learning_rate or"
        " --config.train.clip with a different --workdir."
    )


@jax.jit
def _are_finite(tree: Any) -> Any:
    """Return whether all values of each leaf are finite."""
    return jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), tree)
