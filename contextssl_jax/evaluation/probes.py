"""Closed-form probes of frozen vectors: ridge regression and k nearest neighbours."""

import jax
import jax.numpy as jnp

_EXACT = jax.lax.Precision.HIGHEST


def ridge_predict(fit: jax.Array, targets: jax.Array, test: jax.Array, penalty: float) -> jax.Array:
    """Fits ridge regression on standardised vectors and predicts for others.

    Args:
      fit: vectors to fit on, [n, D]; each entry is scaled to variance 1.
      targets: [n, T].
      test: vectors to predict for, [m, D].
      penalty: relative to the entries' variance. A weak one reads whatever is there, however small
        its variance; a strong one only what is large.

    Returns:
      [m, T].
    """
    mean, std = fit.mean(axis=0), fit.std(axis=0) + 1e-6
    x = (fit - mean) / std
    centre = targets.mean(axis=0)
    gram = jnp.matmul(x.T, x, precision=_EXACT) / len(x) + penalty * jnp.eye(x.shape[1])
    moment = jnp.matmul(x.T, targets - centre, precision=_EXACT) / len(x)
    weights = jax.scipy.linalg.solve(gram, moment, assume_a="pos")
    return jnp.matmul((test - mean) / std, weights, precision=_EXACT) + centre


def r2_per_entry(target: jax.Array, predicted: jax.Array) -> jax.Array:
    """Coefficient of determination of each entry, [n, T], [n, T] -> [T]; a constant scores 0."""
    residual = jnp.sum((target - predicted) ** 2, axis=0)
    return 1 - residual / jnp.sum((target - target.mean(axis=0)) ** 2, axis=0)


def r2_global(target: jax.Array, predicted: jax.Array) -> jax.Array:
    """The official code's R²: one mean over samples and entries, so a constant may score above 0.

    Args:
      target: [n, T].
      predicted: [n, T].
    """
    return 1 - jnp.sum((target - predicted) ** 2) / jnp.sum((target - target.mean()) ** 2)


def knn_accuracy(
    bank: jax.Array, bank_labels: jax.Array, test: jax.Array, labels: jax.Array, neighbours: int
) -> jax.Array:
    """Share of test vectors whose nearest neighbours vote for their class.

    Votes weigh exp(cosine / 0.1), as is common for self-supervised models (arXiv 1805.01978).

    Args:
      bank: vectors that vote, [n, D].
      bank_labels: their classes, int [n].
      test: [m, D].
      labels: int [m].
      neighbours: how many vote, at most n.
    """
    bank, test = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (bank, test))
    cosine, index = jax.lax.top_k(jnp.matmul(test, bank.T, precision=_EXACT), neighbours)
    weights = jnp.exp((cosine - 1) / 0.1)
    # A class's score at each neighbour is the sum of the votes for that neighbour's class.
    classes = bank_labels[index]
    votes = jnp.sum(weights[:, None, :] * (classes[:, :, None] == classes[:, None, :]), axis=2)
    winner = jnp.take_along_axis(classes, votes.argmax(axis=1)[:, None], axis=1)[:, 0]
    return jnp.mean(winner == labels)
