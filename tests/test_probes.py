"""Probes find what is there, by closed forms, and score it as defined."""

import numpy as np
import pytest

from contextssl_jax.evaluation.probes import knn_accuracy, r2_global, r2_per_entry, ridge_predict

RNG = np.random.default_rng(0)
X, TEST = RNG.normal(size=(400, 6)) * [1, 10, 0.1, 1, 1, 1] + 3, RNG.normal(size=(50, 6)) + 3


def test_ridge_recovers_a_linear_map():
    weights, bias = RNG.normal(size=(6, 2)), np.array([4.0, -1.0])
    told = ridge_predict(X, X @ weights + bias, TEST, 1e-9)
    np.testing.assert_allclose(told, TEST @ weights + bias, atol=1e-3)


def test_ridge_is_the_normal_equations():
    y = RNG.normal(size=(400, 3))
    z, z_test = (X - X.mean(0)) / X.std(0), (TEST - X.mean(0)) / X.std(0)
    weights = np.linalg.solve(z.T @ z + 0.3 * 400 * np.eye(6), z.T @ (y - y.mean(0)))
    np.testing.assert_allclose(
        ridge_predict(X, y, TEST, 0.3), z_test @ weights + y.mean(0), atol=1e-4
    )


def test_r2_global_is_the_official_one(recorded):
    record = recorded("losses")
    value = r2_global(record["r2_target"], record["r2_prediction"])
    np.testing.assert_allclose(value, record["r2_global"], rtol=1e-5)


def test_a_constant_scores_zero_per_entry_but_not_globally():
    target = RNG.normal(size=(1000, 2)) + [0.0, 2.0]
    constant = np.broadcast_to(target.mean(axis=0), target.shape)
    np.testing.assert_allclose(r2_per_entry(target, constant), 0, atol=1e-5)
    assert abs(float(r2_global(target, constant)) - 0.5) < 0.05
    np.testing.assert_allclose(r2_per_entry(target, target), 1)


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
