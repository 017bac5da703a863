"""How well classes can be told: linear and kNN accuracy, also with few of the labels."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from contextssl_jax.evaluation.probes import knn_accuracy, standardize
from contextssl_jax.evaluation.trained_probes import Training, apply_layers, fit_classifiers

SHARES = (1.0, 0.1, 0.01)  # of the labels


def accuracies(
    key: jax.Array,
    fit: np.ndarray,
    fit_labels: np.ndarray,
    test: np.ndarray,
    labels: np.ndarray,
    neighbours: int,
    training: Training,
) -> dict[str, dict[str, np.ndarray]]:
    """Scores linear probes trained with Adam, and kNN, with all, 10 % and 1 % of the labels.

    Args:
      key: draws the linear probes' initial weights and orders.
      fit: vectors to learn from under U conditions, [U, n, D].
      fit_labels: int [n].
      test: [U, m, D].
      labels: int [m].
      neighbours: that vote, or as many as there are.
      training: of the linear probes; their inputs are standardised.

    Returns:
      Accuracy [U] by probe ("linear", "knn") and share of the labels ("1.0", "0.1", "0.01").
    """
    subsets = [few_labels(fit_labels, share) for share in SHARES]
    x, scale, mean = standardize(jnp.asarray(fit))
    layers = fit_classifiers(key, x, jnp.asarray(fit_labels), subsets, training)
    x = jnp.tile((test - mean) / scale, (len(SHARES), 1, 1))
    told = apply_layers(layers, x).argmax(axis=-1)
    linear = np.asarray(jnp.mean(told == labels, axis=1)).reshape(len(SHARES), -1)
    knn = [
        [
            float(knn_accuracy(bank[s], fit_labels[s], asked, labels, min(neighbours, len(s))))
            for bank, asked in zip(fit, test, strict=True)
        ]
        for s in subsets
    ]
    return {"linear": _by_share(linear), "knn": _by_share(np.asarray(knn))}


def few_labels(labels: np.ndarray, share: float) -> np.ndarray:
    """Returns the places of each class's first share, rounded up, in rising order."""
    places = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return np.sort(np.concatenate([p[: int(np.ceil(share * len(p)))] for p in places]))


def _by_share(values: Sequence[np.ndarray] | np.ndarray) -> dict[str, np.ndarray]:
    return {str(share): value for share, value in zip(SHARES, values, strict=True)}
