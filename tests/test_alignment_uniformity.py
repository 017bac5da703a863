"""Alignment and uniformity of vectors whose distances are known, and of each condition."""

from types import SimpleNamespace

import numpy as np
import pytest

from contextssl_jax.evaluation.contexts import Conditions
from contextssl_jax.evaluation.evaluators.alignment_uniformity import (
    alignment,
    evaluate,
    uniformity,
)
from contextssl_jax.evaluation.evaluators.base import Embeddings

# Squared distances of the pairs: 2 (a right angle) and 0.
PAIRS = np.array([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], np.float32)
# Of (1, 0), (0, 1), (-1, 0): 2, 4, 2.
CORNERS = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)


def test_alignment_is_the_mean_squared_distance_of_pairs():
    assert float(alignment(PAIRS)) == pytest.approx((2 + 0) / 2)
    assert float(alignment(PAIRS * [[[3], [0.5]], [[1], [7]]])) == pytest.approx(1)  # directions
    assert float(alignment(np.stack([CORNERS, -CORNERS], axis=1))) == pytest.approx(4)


def test_uniformity_is_the_log_of_the_mean_potential_of_different_vectors():
    expected = np.log((2 * np.exp(-4) + np.exp(-8)) / 3)
    assert float(uniformity(CORNERS)) == pytest.approx(expected, rel=1e-5)
    assert float(uniformity(5 * CORNERS)) == pytest.approx(expected, rel=1e-5)
    assert float(uniformity(np.ones((4, 3), np.float32))) == pytest.approx(0, abs=1e-5)


def test_uniformity_is_that_of_all_pairs_in_one_matrix():
    h = np.random.default_rng(0).normal(size=(1100, 5)).astype(np.float32)  # several batches
    unit = h / np.linalg.norm(h, axis=1, keepdims=True)
    squared = ((unit[:, None] - unit[None]) ** 2).sum(axis=-1)
    potential = np.exp(-2 * squared)[~np.eye(len(h), dtype=bool)]
    assert float(uniformity(h)) == pytest.approx(np.log(potential.mean()), abs=1e-4)


def test_each_condition_has_its_own_values():
    environments = {"a": np.array([True]), "none": np.array([False])}
    inputs = SimpleNamespace(conditions=Conditions(environments, (0, 2)))
    same = np.ones((2, 2, 2), np.float32)
    test = np.stack([same, PAIRS, np.stack([PAIRS[0], -PAIRS[0]])])  # no context, a, none
    found = evaluate(inputs, Embeddings(None, test, None, None))["alignment_uniformity"]
    assert list(found) == ["a", "none"] and list(found["a"]) == ["alignment", "uniformity"]
    assert found["a"]["alignment"] == pytest.approx({"0": 0, "2": 1}, abs=1e-6)
    assert found["none"]["alignment"] == pytest.approx({"0": 0, "2": 2}, abs=1e-6)
    # (1, 0) and three times (0, 1): 3 of 6 pairs at squared distance 2, 3 at 0.
    of_a = np.log((3 * np.exp(-4) + 3) / 6)
    assert found["a"]["uniformity"] == pytest.approx({"0": 0, "2": of_a}, abs=1e-5)
    # Four corners: 4 of 6 pairs at squared distance 2, 2 at 4.
    of_none = np.log((4 * np.exp(-4) + 2 * np.exp(-8)) / 6)
    assert found["none"]["uniformity"] == pytest.approx({"0": 0, "2": of_none}, abs=1e-4)
