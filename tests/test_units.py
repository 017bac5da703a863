"""Actions and predicted parameters in their own units, by option, and R² of either."""

import jax
import numpy as np
import pytest
from small_methods import small, small_config

from contextssl_jax.methods.base import observed_actions
from contextssl_jax.methods.context_head import action_scales

RAW = (("loss.standardize_targets", False), ("model.standardize_actions", False))
METHODS = ("contextssl", "supervised")


def metrics_of_constant(name, options, prediction):
    """The training metrics of a predictor of constants."""
    one = small(name, options)
    last = max(one.params["predictor"])
    params = jax.tree.map(np.copy, one.params)
    layer = params["predictor"][last]
    layer["kernel"][:], layer["bias"][:] = 0, prediction
    args = params, one.batch_stats, one.batch, jax.random.key(0)
    return jax.jit(one.method.loss)(*args)[1][1]


@pytest.mark.parametrize("name", METHODS)
def test_a_constant_has_the_same_r2_in_both_units_and_its_error_in_its_own(name):
    space, batch = small(name).experiment.dataset.space, small(name).batch
    standardized = metrics_of_constant(name, (), 0)
    raw = metrics_of_constant(name, RAW, space.param_mean)
    r2 = [metric for metric in raw if metric.startswith("predictor_r2/")]
    assert len(r2) == 4
    for metric in r2:
        np.testing.assert_allclose(raw[metric], standardized[metric], atol=1e-5, err_msg=metric)
    t = batch.transform_params[:, :, 1, : len(space.param_mean)]
    squared = np.mean((t - space.param_mean) ** 2, axis=(0, 1))
    groups = [squared[space.param_group_ids == g].mean() for g in range(2)]
    # Each of two environments observes one of the groups.
    np.testing.assert_allclose(raw["loss_predictor"], np.mean(groups), rtol=1e-5)


def test_raw_actions_are_the_groups_own_and_are_not_scaled():
    one = small("contextssl", RAW)
    t = one.batch.transform_params
    raw = np.concatenate(
        [
            group.relative(t[:, :, 0, entries], t[:, :, 1, entries])
            for group, entries in zip(one.method.space.groups, (slice(4), slice(4, 5)), strict=True)
        ],
        axis=-1,
    )
    observed = one.batch.environments[:, :, None][..., one.method.space.action_group_ids]
    actions = observed_actions(one.method.space, one.batch)
    np.testing.assert_allclose(actions, raw[:, None] * observed, atol=1e-6)
    config = small_config("contextssl")
    config.update_from_flattened_dict(dict(RAW))
    np.testing.assert_array_equal(action_scales(one.method.space, config.model), 1)
