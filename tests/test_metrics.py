"""Metrics are what their names say."""

import jax.numpy as jnp
import numpy as np

from contextssl_jax.methods.metrics import early_late_ratio, observed_r2


def test_early_late_compares_the_first_eighth_with_the_last_quarter():
    losses = jnp.ones((2, 1, 16)).at[:, :, :2].set(3.0).at[:, :, 2:12].set(100.0)
    assert early_late_ratio(losses, None) == 3.0


def test_shown_r2_averages_only_where_a_group_is_shown():
    errors = np.random.default_rng(0).random((2, 2, 6, 3))
    environments = np.array([[[1, 0, 0], [0, 1, 0]], [[1, 0, 0], [1, 1, 0]]], bool)
    r2 = observed_r2(jnp.asarray(errors), environments, None)
    for group, places in ((0, [(0, 0), (1, 0), (1, 1)]), (1, [(0, 1), (1, 1)])):
        for token in (0, 1):
            mean = np.mean([errors[b, e, token::2, group] for b, e in places])
            np.testing.assert_allclose(r2[token, group], 1 - mean, rtol=1e-5)
    assert np.isnan(r2[:, 2]).all()
