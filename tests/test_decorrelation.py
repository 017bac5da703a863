"""Variance and covariance are a naive loop's, and those of small numbers done by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import run

from contextssl_jax.losses import mean_variance_covariance, variance_covariance

H = np.random.default_rng(0).normal(size=(3, 2, 4, 5)) * np.linspace(0.3, 2, 5)  # [B, E, K, P]


def naive(rows: np.ndarray) -> tuple[float, float]:
    """VICReg's two terms of rows [N, P], one entry of the covariance after the other."""
    n, p = rows.shape
    means = [sum(rows[:, i]) / n for i in range(p)]
    covariance = np.zeros((p, p))
    for i, j in np.ndindex(p, p):
        for row in rows:
            covariance[i, j] += (row[i] - means[i]) * (row[j] - means[j]) / (n - 1)
    variance = sum(max(0.0, 1 - np.sqrt(covariance[i, i] + 1e-4)) for i in range(p)) / p
    others = sum(covariance[i, j] ** 2 for i, j in np.ndindex(p, p) if i != j) / p
    return variance, others


@pytest.mark.parametrize(
    "rows, variance, covariance",
    [
        ([[0, 0], [2, 2]], 0.0, 4.0),  # variances and covariance 2: (2² + 2²) / 2
        ([[0, 0], [1, 1]], 1 - np.sqrt(0.5001), 0.25),  # all 1/2
        ([[3, 3], [3, 3]], 0.99, 0.0),  # collapsed: only the epsilon is left
        ([[1, 0], [-1, 0], [0, 3], [0, -3]], (1 - np.sqrt(2 / 3 + 1e-4)) / 2, 0.0),
        ([[1, 2], [-1, 2], [1, -2], [-1, -2], [0, 0]], 0.0, 0.0),  # variances 1 and 4
    ],
)
def test_small_numbers(rows, variance, covariance):
    found = variance_covariance(jnp.asarray(rows, jnp.float32), None)
    np.testing.assert_allclose(found, (variance, covariance), atol=1e-5)


def test_it_is_a_naive_loop_of_each_reading():
    found = mean_variance_covariance(jnp.asarray(H, jnp.float32), None)
    each = [naive(H[:, e].reshape(-1, 5)) for e in range(2)]
    assert min(variance for variance, _ in each) > 0.05
    np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-5)
    both = naive(H.swapaxes(0, 1).reshape(-1, 5))  # readings do not meet
    assert abs(found.covariance - both[1]) > 0.01 * both[1]


def test_a_large_mean_does_not_drown_the_spread():
    found = variance_covariance(jnp.asarray(H[:, 0].reshape(-1, 5) + 100.0, jnp.float32), None)
    np.testing.assert_allclose(found, naive(H[:, 0].reshape(-1, 5)), rtol=1e-3)


def test_rows_on_four_devices_are_one_batch_with_its_gradient():
    rows = np.random.default_rng(1).normal(size=(4, 3, 5)).astype(np.float32)
    rows += np.arange(4)[:, None, None]  # so that devices have other means

    def loss(h, axis):
        return sum(variance_covariance(h, axis))

    one, expected = jax.value_and_grad(loss)(rows.reshape(12, 5), None)
    # The mean of devices' gradients is the whole's: each device's own part of it comes fourfold.
    each, found = run(jax.pmap(lambda h: jax.value_and_grad(loss)(h, "data"), "data"), rows)
    np.testing.assert_allclose(each, [one] * 4, rtol=1e-5)
    np.testing.assert_allclose(found.reshape(12, 5) / 4, expected, atol=1e-5)
