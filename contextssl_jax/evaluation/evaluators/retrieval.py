"""Retrieval: the rank of an action's target among its record's views, by distance from z_r."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.evaluation.contexts import Conditions
from contextssl_jax.evaluation.evaluators.base import (
    CONTEXT,
    LENGTH,
    Comparison,
    Embeddings,
    EvalInputs,
    Evaluator,
    Level,
    Metric,
    Report,
    TableLayout,
    Tree,
)
from contextssl_jax.evaluation.views import EvalData

HITS = (1, 5, 10)
NAMES = {"mrr": "MRR", **{f"hit@{k}": f"H@{k}" for k in HITS}}


def evaluate(inputs: EvalInputs, embeddings: Embeddings) -> Tree:
    """Return scores by environment, name and length."""
    conditions = inputs.conditions
    exclude_source = inputs.options.retrieval.exclude_source
    values = score_conditions(
        embeddings.retrieval, embeddings.predicted_targets, conditions, exclude_source
    )
    tree = {
        e: {name: conditions.name_lengths(scores[i]) for name, scores in values.items()}
        for i, e in enumerate(conditions.environments)
    }
    return {"retrieval": tree}


def score_conditions(
    bank: np.ndarray, queries: np.ndarray, conditions: Conditions, exclude_source: bool
) -> dict[str, np.ndarray]:
    """Return retrieval scores under every environment and length.

    Args:
      bank: view embeddings z⁺ of V views of n records, [U, n, V, P].
      queries: predicted targets z_r of view 0 and the action to each view, [E, C, n, V, P].
      conditions: the U conditions, of E environments and C lengths.
      exclude_source: see rank_targets.

    Returns:
      Scores [E, C] by name; see score_ranks.
    """
    candidates = bank.shape[2] - int(exclude_source)
    shape = len(conditions.environments), len(conditions.lengths)
    scores: dict[str, np.ndarray] = {}
    for e, environment in enumerate(conditions.environments):
        for c, length in enumerate(conditions.lengths):
            row = bank[conditions.row(environment, length)]
            ahead, tied = jax.device_get(rank_targets(queries[e, c], row, exclude_source))
            for name, value in score_ranks(ahead, tied, candidates).items():
                scores.setdefault(name, np.zeros(shape))[e, c] = value
    return scores


@functools.partial(jax.jit, static_argnums=2)
def rank_targets(
    queries: jax.Array, bank: jax.Array, exclude_source: bool
) -> tuple[jax.Array, jax.Array]:
    """Compare each query with all views of its record.

    Args:
      queries: predicted targets z_r of view 0 and the action to view j, unit vectors [n, V, P].
      bank: view embeddings z⁺, unit vectors [n, V, P].
      exclude_source: leave out view 0, as a candidate and as a target.

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
    """Return MRR and H@k in expectation over random orders of tied candidates.

    A model that embeds all views equally thus scores at chance, not 1.

    Args:
      ahead: see rank_targets; any shape.
      tied: likewise.
      candidates: number of ranked views, the target included.
    """
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, candidates + 1))])
    span = tied + 1
    scores = {"mrr": float(np.mean((harmonic[ahead + span] - harmonic[ahead]) / span))}
    for k in HITS:
        scores[f"hit@{k}"] = float(np.mean(np.clip((k - ahead) / span, 0, 1)))
    return scores


def chance(candidates: int) -> dict[str, float]:
    """Return the scores of a random order."""
    return score_ranks(np.zeros(1, int), np.full(1, candidates - 1), candidates)


def nearest(query: np.ndarray, bank: np.ndarray, allowed: Sequence[int], n: int) -> list[int]:
    """Return the n allowed views nearest to a query [P] in a bank [V, P], nearest first."""
    order = np.argsort(-(bank[list(allowed)] @ query), kind="stable")[:n]
    return [int(allowed[i]) for i in order]


def _settings(options: ConfigDict, data: EvalData) -> Tree:
    exclude_source = options.retrieval.exclude_source
    candidates = data.retrieval.transform_params.shape[1] - int(exclude_source)
    return {"exclude_source": exclude_source, "retrieval_chance": chance(candidates)}


def describe_candidates(report: Report) -> str:
    """Return a sentence on queries and candidates, from a report's provenance."""
    p = report["provenance"]
    views = p["views"]["retrieval"]
    source = "excluded" if p["exclude_source"] else "included, as in the official code"
    return (
        f"Candidates: the {views['views'] // views['records']} views of the query's record, the"
        f" source view {source}. Ties count as in a random order. {views['records']} records of the"
        f" {views['split']} split."
    )


EVALUATOR = Evaluator(
    metrics=(
        Metric(
            "retrieval",
            (CONTEXT, Level("metric", NAMES), LENGTH),
            "mean reciprocal rank and hit rates, 0 to 1",
            TableLayout(
                "Retrieval",
                "Rank of an action's target among its record's views, by distance from the"
                " predicted target z_r, by tokens of context. The model is given the action's"
                " observed part.",
                describe_candidates,
                extra={
                    "chance": lambda report, keys: report["provenance"]["retrieval_chance"][
                        keys["metric"]
                    ]
                },
            ),
            Comparison(selected={"metric": "mrr"}, by_environment=True),
            required=True,
        ),
    ),
    evaluate=evaluate,
    settings=_settings,
    terms={
        "MRR": "Mean reciprocal rank of the target among the candidates.",
        "H@k": "Fraction of queries whose target is among the k nearest candidates.",
    },
)
