"""Probes find what is there, by closed forms, and score it as defined."""

import numpy as np
import pytest

from contextssl_jax.evaluation.probes import knn_accuracy, ridge_predict

RNG = np.random.default_rng(0)
X, TEST = RNG.normal(size=(400, 6)) * [1, 10, 0.1, 1, 1, 1] + 3, RNG.normal(size=(50, 6)) + 3


def test_ridge_recovers_a_linear_map():
    weights, bias = RNG.normal(size=(6, 2)), np.array([4.0, -1.0])
    result = ridge_predict(X[None], X @ weights + bias, TEST[None], (1e-9,))
    np.testing.assert_allclose(result[0, 0], TEST @ weights + bias, atol=1e-3)


def test_ridge_is_the_normal_equations_of_each_condition_and_penalty():
    y = RNG.normal(size=(400, 3))
    fits, tests = np.stack([X, X**2]), np.stack([TEST, TEST**2])
    result = ridge_predict(fits, y, tests, (0.3, 2.0))
    for i, penalty in enumerate((0.3, 2.0)):
        for j, (x, test) in enumerate(zip(fits, tests, strict=True)):
            z, z_test = (x - x.mean(0)) / x.std(0), (test - x.mean(0)) / x.std(0)
            weights = np.linalg.solve(z.T @ z + penalty * 400 * np.eye(6), z.T @ (y - y.mean(0)))
            np.testing.assert_allclose(result[i, j], z_test @ weights + y.mean(0), atol=2e-4)


@pytest.mark.parametrize("neighbours", [1, 5])
def test_knn_is_a_naive_vote(neighbours):
    centres = np.eye(4)[:3] + 0.2
    labels, test_labels = RNG.integers(0, 3, 60), RNG.integers(0, 3, 40)
    bank = centres[labels] + RNG.normal(size=(60, 4)) * 0.5
    test = centres[test_labels] + RNG.normal(size=(40, 4)) * 0.5
    right = 0
    for vector, label in zip(test, test_labels, strict=True):
        cosine = bank @ vector / np.linalg.norm(bank, axis=1) / np.linalg.norm(vector)
        nearest = np.argsort(-cosine)[:neighbours]
        votes = np.bincount(labels[nearest], np.exp(cosine[nearest] / 0.1), minlength=3)
        right += votes.argmax() == label
    accuracy = knn_accuracy(bank, labels, test, test_labels, neighbours)
    np.testing.assert_allclose(accuracy, right / 40, atol=1e-6)
    assert 0.4 < accuracy < 1
