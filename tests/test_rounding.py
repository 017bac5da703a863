"""Rounding erases what is squeezed and keeps the rest."""

import jax.numpy as jnp
import numpy as np
import pytest

from contextssl_jax.evaluation.evaluators.erasure import linear_r2
from contextssl_jax.evaluation.scores import Target
from contextssl_jax.experiment import build_experiment
from contextssl_jax.methods.rounding import round_embeddings, round_to_grid

RNG = np.random.default_rng(0)
N, M, P = 3000, 1000, 64


def unit(h):
    return h / np.linalg.norm(h, axis=-1, keepdims=True)


def test_rounded_entries_are_multiples_of_the_step_up_to_the_length():
    h = unit(RNG.normal(size=(50, P))).astype(np.float32)
    rounded = np.asarray(round_to_grid(h, 0.4))  # 0.05 sqrt(P)
    np.testing.assert_allclose(np.linalg.norm(rounded, axis=1), 1, rtol=1e-6)
    for row, original in zip(rounded, h, strict=True):
        grid = 0.05 * np.round(original / 0.05)
        np.testing.assert_allclose(row, unit(grid), atol=1e-6)


def test_a_squeezed_parameter_is_not_predicted_and_a_large_one_is():
    t = RNG.normal(size=(N + M, 2))
    basis = np.linalg.qr(RNG.normal(size=(P, P)))[0]
    # The first is a tenth of the variance, the second 2e-5 of it.
    h = t @ (np.array([[0.3], [0.004]]) * basis[:2]) + 0.9 * RNG.normal(size=(N + M, 20)) @ (
        basis[2:22] / 20**0.5
    )
    h = unit(h).astype(np.float32)
    target = Target(("a", "b"), np.array([0, 1]), np.zeros(2), np.ones(2), t[:N], t[N:])

    def r2(h):
        return linear_r2(h[None, :N], h[None, N:], target, 2)[0]

    before, after = r2(h), r2(np.asarray(round_to_grid(h, 0.5)))
    assert before[1] > 0.8 and after[1] < 0.1
    assert after[0] > 0.9 * before[0] > 0.7


def test_an_entry_far_below_the_step_is_zero_with_a_finite_result():
    np.testing.assert_array_equal(round_to_grid(jnp.full((1, 4), 0.01), 1.0), np.zeros((1, 4)))


@pytest.mark.parametrize("rounding", [0.0, 0.5])
def test_evaluation_rounds_as_its_option_says(config, rounding):
    config.eval.rounding = rounding
    experiment = build_experiment(config)
    variables = experiment.init().variables
    features = np.asarray(RNG.normal(size=(3, 32)), np.float32)
    query = variables, None, 0, features, None
    plain, found = experiment.method.embed(*query), experiment.eval_method.embed(*query)
    np.testing.assert_allclose(
        found, round_to_grid(plain, rounding) if rounding else plain, atol=1e-6
    )


def test_a_step_of_zero_is_the_same_method(config):
    method = build_experiment(config).method
    assert round_embeddings(method, 0.0) is method
