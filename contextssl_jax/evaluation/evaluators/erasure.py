"""Whether information that a probe misses is erased, or only squeezed into a small variance.

Three values for each group's parameters. Unregularized least squares in float64 predicts from
directions of any variance: its R² is what is there. The same from rounded embeddings is what is
left in directions of a variance that matters. The explained variance is how much of the
embeddings' variance the parameters account for. Low and low: erased. High R², low variance:
squeezed, which rounding erases.
"""

import jax.numpy as jnp
import numpy as np

from contextssl_jax.evaluation.evaluators.base import (
    CONTEXT,
    GROUP,
    LENGTH,
    Comparison,
    Embeddings,
    EvalInputs,
    Evaluator,
    Level,
    Metric,
    TableLayout,
    Tree,
    describe_views,
    nest,
)
from contextssl_jax.evaluation.scores import Target, score
from contextssl_jax.methods.rounding import round_to_grid

# Keys in report.json, where they were fixed, and what the values are.
_NAMES = {
    "readable": "R² by least squares",
    "rounded": "R² by least squares, rounded",
    "share": "explained variance",
}
_ROUNDING = 1.0  # see round_to_grid


def evaluate(inputs: EvalInputs, embeddings: Embeddings) -> Tree:
    """Return the three values by environment, group, name and length."""
    conditions, groups = inputs.conditions, inputs.space.names
    target = inputs.targets["single"]
    fit, test = (h.reshape(len(h), -1, h.shape[-1]) for h in (embeddings.fit, embeddings.test))
    values = {
        "readable": linear_r2(fit, test, target, len(groups)),
        "rounded": linear_r2(_round(fit), _round(test), target, len(groups)),
        "share": explained_variance(fit, test, target, len(groups)),
    }
    tree = nest(
        lambda e, group, name: conditions.by_length(e, values[name][:, groups.index(group)]),
        conditions.environments,
        groups,
        _NAMES,
    )
    return {"erasure": tree}


def linear_r2(fit: np.ndarray, test: np.ndarray, target: Target, groups: int) -> np.ndarray:
    """Return the R² of linear least squares without regularization.

    Args:
      fit: embeddings to fit on, under U conditions, [U, n, P], n well above P.
      test: [U, m, P].
      target: of the same n and m views.
      groups: G.

    Returns:
      R², the mean over each group's entries, [U, G].
    """
    predicted = [_predict(x, target.fit, x_test) for x, x_test in zip(fit, test, strict=True)]
    return score(target, np.stack(predicted), groups)["mean"]


def explained_variance(
    fit: np.ndarray, test: np.ndarray, target: Target, groups: int
) -> np.ndarray:
    """Return the fraction of the embeddings' variance that each group's parameters explain.

    A polynomial of second degree in the group's parameters predicts the embeddings; it is fitted
    on `fit` and scored on `test`.

    Args:
      fit: see linear_r2.
      test: see linear_r2.
      target: see linear_r2.
      groups: see linear_r2.

    Returns:
      [U, G], at most 1; slightly below 0 where there is nothing to fit; 0 for constant embeddings.
    """
    result = np.zeros((len(fit), groups))
    for group in range(groups):
        own = target.group_ids == group
        t, t_test = (_quadratic(x[:, own]) for x in (target.fit, target.test))
        for u, (h, h_test) in enumerate(zip(fit, test, strict=True)):
            residual = np.sum((h_test - _predict(t, h, t_test)) ** 2)
            total = np.sum((h_test - h_test.mean(axis=0)) ** 2)
            result[u, group] = 1 - residual / total if total else 0
    return result


def _round(h: np.ndarray) -> np.ndarray:
    return np.asarray(round_to_grid(jnp.asarray(h), _ROUNDING))


def _predict(x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """Fit y [n, T] from x [n, D] by least squares and predict from x_test [m, D]."""
    x, x_test, y = (np.asarray(a, np.float64) for a in (x, x_test, y))
    mean, scale, center = x.mean(axis=0), x.std(axis=0) + 1e-12, y.mean(axis=0)
    z = (x - mean) / scale
    # Not a penalty: it keeps the matrix of linearly dependent entries invertible.
    gram = z.T @ z / len(z) + 1e-10 * np.eye(z.shape[1])
    weights = np.linalg.solve(gram, z.T @ (y - center) / len(z))
    return (x_test - mean) / scale @ weights + center


def _quadratic(t: np.ndarray) -> np.ndarray:
    """Return entries [n, T] and all their products."""
    rows, columns = np.triu_indices(t.shape[1])
    return np.concatenate([t, t[:, rows] * t[:, columns]], axis=1)


EVALUATOR = Evaluator(
    metrics=(
        Metric(
            "erasure",
            (CONTEXT, GROUP, Level("metric", _NAMES), LENGTH),
            "R² and fraction of variance, each at most 1; 0 is none",
            TableLayout(
                "Erased or squeezed",
                "Is a group gone from view embeddings z⁺ (low R²), or only squeezed into directions"
                " of small variance (high R², low explained variance), which rounding erases? By"
                " tokens of context.",
                lambda report: describe_views(report, "fit", "test"),
            ),
            Comparison(split="group"),
        ),
    ),
    evaluate=evaluate,
    terms={
        "erased": "Least squares without regularization does not predict the group's parameters.",
        "rounded": "Entries of embeddings are rounded to multiples of their root mean square.",
        "squeezed": "Least squares predicts the parameters, but they explain almost none of the"
        " embeddings' variance, so that regularized or briefly trained probes miss them.",
    },
)
