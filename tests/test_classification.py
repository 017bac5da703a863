"""Accuracies with all and with few of the labels."""

import jax
import numpy as np
import pytest

from contextssl_jax.evaluation.evaluators.classification import accuracies, few_labels
from contextssl_jax.evaluation.trained_probes import Training

RNG = np.random.default_rng(0)


def test_few_labels_are_a_share_of_each_class_at_least_one():
    labels = np.array([0] * 250 + [1] * 30 + [2] * 3)
    kept = few_labels(labels, 0.1)
    assert np.bincount(labels[kept]).tolist() == [25, 3, 1]
    np.testing.assert_array_equal(few_labels(labels, 1.0), np.arange(283))


def test_conditions_are_scored_apart_and_few_labels_cost():
    labels, test_labels = RNG.integers(0, 4, 800), RNG.integers(0, 4, 200)
    centres = RNG.normal(size=(4, 6))

    def draw(labels, noise):
        x = [centres[labels] + RNG.normal(size=(len(labels), 6)) * s for s in noise]
        return np.stack(x) + [9, 0, 0, 0, 0, 0]  # linear probes standardise

    noise = (0.2, 50.0)  # the second condition says nothing of classes
    found = accuracies(
        jax.random.key(0),
        draw(labels, noise),
        labels,
        draw(test_labels, noise),
        test_labels,
        20,
        Training(200, 64, 1e-2),
    )
    assert found.keys() == {"linear", "knn"}
    for by_share in found.values():
        assert list(by_share) == ["1.0", "0.1", "0.01"]
        for share, accuracy in by_share.items():
            assert accuracy.shape == (2,)
            assert accuracy[0] > (0.95 if share == "1.0" else 0.6)
            assert accuracy[1] == pytest.approx(0.25, abs=0.12)
