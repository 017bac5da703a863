"""A penalty on what least squares predicts of hidden groups from embeddings.

For each group, a linear reader predicts its transform parameters from the view embeddings y of the
contexts that hide it. The reader is the least-squares solution of moving averages of the second
moments, so it changes with the embeddings and needs no steps of its own. The penalty is the R² that
this reader has on the batch. By the envelope theorem, its gradient with the reader held fixed is
that of the R² of the best reader.

Letters of shapes: B contexts, E environments, K pairs, G groups, T entries of transform parameters,
P embedding entries.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contextssl_jax.distributed.collectives import sum_over

_DECAY = 0.99  # of the moving averages, per step
_RIDGE = 1e-4  # added to the embeddings' second moments, relative to their mean variance

Statistics = dict[str, jax.Array]


def initial_statistics(groups: int, entries: int, outputs: int) -> Statistics:
    """Return the moments of the reader before the first step, for which it predicts 0.

    Args:
      groups: G.
      entries: T.
      outputs: P.
    """
    return {
        "embeddings": jnp.zeros((groups, outputs + 1, outputs + 1)),
        "parameters": jnp.zeros((entries, outputs + 1)),
    }


def erasure_penalty(
    statistics: Statistics,
    h: jax.Array,
    target: jax.Array,
    hidden: jax.Array,
    group_ids: np.ndarray,
    axis: str | None,
) -> tuple[jax.Array, Statistics, jax.Array]:
    """Compute the R² of the linear reader on this batch.

    Args:
      statistics: from `initial_statistics` or the step before.
      h: view embeddings of length 1, float32 [B, E, K, P].
      target: their transform parameters, with mean 0 and variance 1, float32 [B, K, T].
      hidden: True where an embedding counts for a group, bool [B, E, K, G].
      group_ids: group of each entry, int [T].
      axis: name of the axis over devices that hold other contexts, or None.

    Returns:
      The penalty, the sum over groups of what of their R² is positive, []; the statistics
      with this batch; R² of each group, [G].
    """
    h = jnp.concatenate([h, jnp.ones_like(h[..., :1])], axis=-1)
    weight = hidden.astype(jnp.float32)
    count = sum_over(weight.sum(axis=(0, 1, 2)), axis)  # [G]
    weight = weight / jnp.maximum(count, 1)
    highest: Any = jax.lax.Precision.HIGHEST
    reader = jax.lax.stop_gradient(_solve(statistics, group_ids))  # [T, P + 1]
    predicted = jnp.einsum("bekp,tp->bekt", h, reader, precision=highest)
    errors = jnp.square(target[:, None] - predicted)
    by_entry = jnp.einsum("bekt,bekt->t", errors, weight[..., group_ids], precision=highest)
    members = jax.nn.one_hot(group_ids, hidden.shape[-1])
    errors = sum_over(by_entry, axis) @ (members / members.sum(axis=0))
    r2 = jnp.where(count > 0, 1 - errors, 0)

    fixed = jax.lax.stop_gradient(h)
    batch = {
        "embeddings": jnp.einsum("bekp,bekq,bekg->gpq", fixed, fixed, weight, precision=highest),
        "parameters": jnp.einsum(
            "bkt,bekp,bekt->tp", target, fixed, weight[..., group_ids], precision=highest
        ),
    }
    seen = {"embeddings": count[:, None, None] > 0, "parameters": count[group_ids, None] > 0}
    updated = {
        name: jnp.where(
            seen[name], _DECAY * value + (1 - _DECAY) * sum_over(batch[name], axis), value
        )
        for name, value in statistics.items()
    }
    return jax.nn.relu(r2).sum(), updated, r2


def _solve(statistics: Statistics, group_ids: np.ndarray) -> jax.Array:
    """Return the least-squares reader of every entry, [T, P + 1]."""
    moments = statistics["embeddings"]
    size = moments.shape[-1]
    weight = moments[:, -1:, -1:]  # of all rows so far
    mean = moments[:, :, -1:] / jnp.maximum(weight, 1e-12)
    variance = jnp.trace(moments - weight * mean * mean.swapaxes(1, 2), axis1=1, axis2=2) / size
    ridge = (_RIDGE * variance + 1e-12)[:, None, None] * jnp.eye(size)
    inverse = jnp.linalg.inv(moments + ridge)[group_ids]
    return jnp.einsum(
        "tp,tpq->tq", statistics["parameters"], inverse, precision=jax.lax.Precision.HIGHEST
    )
