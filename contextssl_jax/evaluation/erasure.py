"""Is what a probe no longer finds erased, or only squeezed small?

Two figures of a group's latents in embeddings. What least squares reads, without any penalty and
in float64, is there, however small. The share of the embeddings' variance that the latents explain
is how large it is. Small and unread is erased; small and read is squeezed.
"""

import numpy as np

from contextssl_jax.evaluation.scores import Target, score


def linear_r2(fit: np.ndarray, test: np.ndarray, target: Target, groups: int) -> np.ndarray:
    """Scores linear least squares.

    Args:
      fit: embeddings to fit on, under U conditions, [U, n, P], n well above P.
      test: [U, m, P].
      target: of the same n and m views.
      groups: G.

    Returns:
      R², the mean over each group's entries, [U, G].
    """
    told = [_predict(x, target.fit, x_test) for x, x_test in zip(fit, test, strict=True)]
    return score(target, np.stack(told), groups)["mean"]


def explained_variance(
    fit: np.ndarray, test: np.ndarray, target: Target, groups: int
) -> np.ndarray:
    """Measures how much of the embeddings' variance each group's latents explain.

    By a polynomial of second degree in the group's latents, fitted on `fit` and scored on `test`.

    Args:
      fit: see readable.
      test: see readable.
      target: see readable.
      groups: see readable.

    Returns:
      [U, G]; 0 is nothing, 1 is all. A little below 0 where there is nothing to fit; 0 where
      embeddings are all the same.
    """
    result = np.zeros((len(fit), groups))
    for group in range(groups):
        own = target.owner == group
        t, t_test = (_second_degree(x[:, own]) for x in (target.fit, target.test))
        for u, (h, h_test) in enumerate(zip(fit, test, strict=True)):
            residual = np.sum((h_test - _predict(t, h, t_test)) ** 2)
            total = np.sum((h_test - h_test.mean(axis=0)) ** 2)
            result[u, group] = 1 - residual / total if total else 0
    return result


def _predict(x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    """Fits y [n, T] from x [n, D] by least squares, and predicts from x_test [m, D]."""
    x, x_test, y = (np.asarray(a, np.float64) for a in (x, x_test, y))
    mean, scale, centre = x.mean(axis=0), x.std(axis=0) + 1e-12, y.mean(axis=0)
    z = (x - mean) / scale
    # Not a penalty: it keeps entries that say the same from being a division by zero.
    gram = z.T @ z / len(z) + 1e-10 * np.eye(z.shape[1])
    weights = np.linalg.solve(gram, z.T @ (y - centre) / len(z))
    return (x_test - mean) / scale @ weights + centre


def _second_degree(t: np.ndarray) -> np.ndarray:
    """Returns entries [n, T] and all their products."""
    rows, columns = np.triu_indices(t.shape[1])
    return np.concatenate([t, t[:, rows] * t[:, columns]], axis=1)
