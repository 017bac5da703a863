"""Closed-form probes of frozen vectors: ridge regression and k nearest neighbours."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

_EXACT = jax.lax.Precision.HIGHEST


@functools.partial(jax.jit, static_argnums=3)
def ridge_predict(
    fit: jax.Array, targets: jax.Array, test: jax.Array, penalties: Sequence[float]
) -> jax.Array:
    """Fits ridge regression on standardised vectors and predicts for others.

    Args:
      fit: vectors to fit on, under U conditions, [U, n, D]; each entry is scaled to variance 1.
      targets: [n, T].
      test: vectors to predict for, [U, m, D].
      penalties: relative to the entries' variance. A weak one reads whatever is there, however
        small its variance; a strong one only what is large. A tuple of Q.

    Returns:
      [Q, U, m, T].
    """
    centre = targets.mean(axis=0)

    def one(condition: tuple[jax.Array, jax.Array]) -> jax.Array:
        fit, test = condition
        x, scale, mean = standardize(fit)
        gram = jnp.matmul(x.T, x, precision=_EXACT) / len(x)
        moment = jnp.matmul(x.T, targets - centre, precision=_EXACT) / len(x)
        weights = jnp.stack(
            [
                jax.scipy.linalg.solve(gram + q * jnp.eye(len(gram)), moment, assume_a="pos")
                for q in penalties
            ]
        )
        return jnp.matmul((test - mean) / scale, weights, precision=_EXACT) + centre

    return jax.lax.map(one, (fit, test)).swapaxes(0, 1)


def standardize(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns vectors [..., n, D] with entries of mean 0, deviation 1; the deviation, the mean."""
    mean, std = x.mean(axis=-2, keepdims=True), x.std(axis=-2, keepdims=True) + 1e-6
    return (x - mean) / std, std, mean


@functools.partial(jax.jit, static_argnums=4)
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
    bank = bank / jnp.linalg.norm(bank, axis=1, keepdims=True)

    def right(asked: tuple[jax.Array, jax.Array]) -> jax.Array:
        vector, label = asked
        cosine, index = jax.lax.top_k(
            jnp.matmul(bank, vector, precision=_EXACT) / jnp.linalg.norm(vector), neighbours
        )
        # A class's score at each neighbour is the sum of the votes for that neighbour's class.
        classes = bank_labels[index]
        votes = jnp.exp((cosine - 1) / 0.1) @ (classes[:, None] == classes[None, :])
        return classes[votes.argmax()] == label

    # In batches: all m x n cosines at once would not fit.
    return jnp.mean(jax.lax.map(right, (test, labels), batch_size=256))
