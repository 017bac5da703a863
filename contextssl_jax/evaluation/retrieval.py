"""Retrieval: is the view that an action leads to the nearest of its record's views?"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

HITS = (1, 5, 10)


def rank_targets(
    queries: jax.Array, bank: jax.Array, exclude_source: bool
) -> tuple[jax.Array, jax.Array]:
    """Compares each query with all views of its record.

    Args:
      queries: z_r of (view 0, action to view j), unit vectors [n, V, P].
      bank: z⁺ of the views, unit vectors [n, V, P].
      exclude_source: leave view 0 out, as a candidate and as a target.

    Returns:
      ahead: candidates nearer than the target, int [n, V or V - 1].
      tied: other candidates exactly as near, likewise.
    """
    cosine = jnp.einsum("njp,nvp->njv", queries, bank, precision=jax.lax.Precision.HIGHEST)
    own = jnp.diagonal(cosine, axis1=1, axis2=2)
    first = int(exclude_source)
    candidates, own = cosine[:, first:, first:], own[:, first:, None]
    ahead = (candidates > own).sum(axis=-1)
    tied = (candidates == own).sum(axis=-1) - 1
    return ahead, tied


def score_ranks(ahead: np.ndarray, tied: np.ndarray, candidates: int) -> dict[str, float]:
    """Returns MRR and H@k in expectation over a random order of what is tied.

    So a model that embeds all views alike scores at chance, not 1.

    Args:
      ahead: see rank_targets; any shape.
      tied: likewise.
      candidates: how many views a target competes with, itself among them.
    """
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, candidates + 1))])
    span = tied + 1
    scores = {"mrr": float(np.mean((harmonic[ahead + span] - harmonic[ahead]) / span))}
    for k in HITS:
        scores[f"hit@{k}"] = float(np.mean(np.clip((k - ahead) / span, 0, 1)))
    return scores


def chance(candidates: int) -> dict[str, float]:
    """Returns the scores of a random order."""
    return score_ranks(np.zeros(1, int), np.full(1, candidates - 1), candidates)


def nearest(query: np.ndarray, bank: np.ndarray, allowed: Sequence[int], n: int) -> list[int]:
    """Returns the n allowed views nearest to a query [P] in a bank [V, P], nearest first."""
    order = np.argsort(-(bank[list(allowed)] @ query), kind="stable")[:n]
    return [int(allowed[i]) for i in order]
