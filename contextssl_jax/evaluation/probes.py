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
    """Fit ridge regression on standardized vectors and predict for others.

    Args:
      fit: vectors to fit on, under U conditions, [U, n, D]; each entry is scaled to variance 1.
      targets: [n, T].
      test: vectors to predict for, [U, m, D].
      penalties: relative to the entries' variance. A small one also uses directions of small
        variance, a large one only those of large variance. A tuple of Q.

    Returns:
      [Q, U, m, T].
    """
    center = targets.mean(axis=0)

    def one(condition: tuple[jax.Array, jax.Array]) -> jax.Array:
        fit, test = condition
        x, scale, mean = standardize(fit)
        gram = jnp.matmul(x.T, x, precision=_EXACT) / len(x)
        moment = jnp.matmul(x.T, targets - center, precision=_EXACT) / len(x)
        weights = jnp.stack(
            [
                jax.scipy.linalg.solve(gram + q * jnp.eye(len(gram)), moment, assume_a="pos")
                for q in penalties
            ]
        )
        return jnp.matmul((test - mean) / scale, weights, precision=_EXACT) + center

    return jax.lax.map(one, (fit, test)).swapaxes(0, 1)


def standardize(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return vectors [..., n, D] with mean 0 and deviation 1; also the deviation and the mean."""
    mean, std = x.mean(axis=-2, keepdims=True), x.std(axis=-2, keepdims=True) + 1e-6
    return (x - mean) / std, std, mean


@functools.partial(jax.jit, static_argnums=4)
def knn_accuracy(
    bank: jax.Array, bank_labels: jax.Array, test: jax.Array, labels: jax.Array, neighbours: int
) -> jax.Array:
    """Return the fraction of test vectors whose nearest neighbours vote for their class.

    Votes have the weights exp(cosine / 0.1) (arXiv 1805.01978).

    Args:
      bank: voters, [n, D].
      bank_labels: their classes, int [n].
      test: [m, D].
      labels: int [m].
      neighbours: number of voters, at most n.
    """
    # With JAX_DISABLE_JIT, the arguments are NumPy arrays, which traced indices cannot index.
    bank_labels = jnp.asarray(bank_labels)
    bank = bank / jnp.linalg.norm(bank, axis=1, keepdims=True)

    def is_correct(query: tuple[jax.Array, jax.Array]) -> jax.Array:
        vector, label = query
        cosine, index = jax.lax.top_k(
            jnp.matmul(bank, vector, precision=_EXACT) / jnp.linalg.norm(vector), neighbours
        )
        # A class's score at each neighbour is the sum of the votes for that neighbour's class.
        classes = bank_labels[index]
        votes = jnp.exp((cosine - 1) / 0.1) @ (classes[:, None] == classes[None, :])
        return classes[votes.argmax()] == label

    # In batches: all m x n cosines at once would not fit into memory.
    return jnp.mean(jax.lax.map(is_correct, (test, labels), batch_size=256))


@functools.partial(jax.jit, static_argnames="neighbours")
def knn_accuracies(
    bank: jax.Array,
    bank_labels: jax.Array,
    test: jax.Array,
    labels: jax.Array,
    subsets: Sequence[jax.Array],
    neighbours: int,
) -> jax.Array:
    """Return knn_accuracy with the voters of each of S subsets, [S].

    Args:
      bank: see knn_accuracy.
      bank_labels: see knn_accuracy.
      test: see knn_accuracy.
      labels: see knn_accuracy.
      subsets: indices of voters, int [n'] each.
      neighbours: number of voters, reduced to the number of a subset.
    """
    return jnp.stack(
        [
            knn_accuracy(bank[s], bank_labels[s], test, labels, min(neighbours, len(s)))
            for s in subsets
        ]
    )
