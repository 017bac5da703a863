"""Alignment and uniformity of view embeddings (Wang & Isola, arXiv 2005.10242)."""

import jax
import jax.numpy as jnp
import numpy as np

from contextssl_jax.evaluation.evaluators.base import (
    CONTEXT,
    LENGTH,
    Comparison,
    Embeddings,
    EvalInputs,
    Evaluator,
    Level,
    Metric,
    TableLayout,
    Tree,
    describe_test_views,
    nest,
)

_NAMES = {"alignment": "alignment", "uniformity": "uniformity"}
_ROWS = 512  # of the matrix of distances that are in memory at once


def alignment(h: jax.Array) -> jax.Array:
    """Return the mean squared distance between the two views of a record, [..., n, 2, P] -> [...].

    Vectors are normalized first; 0 where both views have the same direction, at most 4.
    """
    h = _normalize(h)
    return jnp.mean(jnp.sum((h[..., 0, :] - h[..., 1, :]) ** 2, axis=-1), axis=-1)


def uniformity(h: jax.Array) -> jax.Array:
    """Return log E exp(-2 ||a - b||²) over all pairs of different vectors, [N, P] -> [].

    Vectors are normalized first; 0 where all have the same direction, lower for vectors that are
    spread more evenly over the sphere, above -8.
    """
    h = _normalize(h)
    n = len(h)

    def potential(row: tuple[jax.Array, jax.Array]) -> jax.Array:
        vector, index = row
        squared_distance = 2 - 2 * jnp.matmul(h, vector, precision=jax.lax.Precision.HIGHEST)
        values = jnp.exp(-2 * squared_distance)
        return jnp.sum(jnp.where(jnp.arange(n) == index, 0, values))

    total = jnp.sum(jax.lax.map(potential, (h, jnp.arange(n)), batch_size=_ROWS))
    return jnp.log(total / (n * (n - 1)))


def evaluate(inputs: EvalInputs, embeddings: Embeddings) -> Tree:
    """Return both values of the test views by environment, name and length."""
    pairs = np.asarray([jax.device_get(_one_condition(h)) for h in embeddings.test])
    values = dict(zip(_NAMES, pairs.T, strict=True))
    conditions = inputs.conditions
    tree = nest(
        lambda e, name: conditions.by_length(e, values[name]), conditions.environments, _NAMES
    )
    return {"alignment_uniformity": tree}


@jax.jit
def _one_condition(h: jax.Array) -> tuple[jax.Array, jax.Array]:
    return alignment(h), uniformity(h.reshape(-1, h.shape[-1]))


def _normalize(h: jax.Array) -> jax.Array:
    return h / jnp.linalg.norm(h, axis=-1, keepdims=True)


EVALUATOR = Evaluator(
    metrics=(
        Metric(
            "alignment_uniformity",
            (CONTEXT, Level("metric", _NAMES), LENGTH),
            "alignment: squared distance of unit vectors, 0 to 4; uniformity: log, -8 to 0",
            TableLayout(
                "Alignment and uniformity",
                "Geometry of view embeddings z⁺ by tokens of context. Lower alignment: a record's"
                " views are closer; lower uniformity: all embeddings are spread more evenly.",
                lambda report: describe_test_views(report, "test"),
            ),
            Comparison(),
        ),
    ),
    evaluate=evaluate,
    terms={
        "alignment": "Mean squared distance between the embeddings of two views of a record"
        " (arXiv 2005.10242).",
        "uniformity": "Logarithm of the mean of exp(-2 d²) over the distances d of all pairs of"
        " embeddings (arXiv 2005.10242).",
    },
)
