"""R² in both definitions, by group, and what a constant scores."""

import numpy as np

from contextssl_jax.evaluation.scores import Target, r2_global, r2_per_entry, score

RNG = np.random.default_rng(0)


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


def test_scores_are_by_group_and_global_in_the_latents_own_units():
    mean, std = np.array([5.0, 0.0, 1.0]), np.array([1.0, 2.0, 3.0])
    fit, test = RNG.normal(size=(50, 3)), RNG.normal(size=(400, 3))
    owner = np.array([0, 0, 1])
    target = Target(("a", "b", "c"), owner, mean, std, fit, test)
    predicted = test + RNG.normal(size=(2, 400, 3)) * [[[0.1, 0.5, 0.9]]]
    result = score(target, predicted, 2)
    for u in range(2):
        entries = [r2_per_entry(test[:, [i]], predicted[u][:, [i]])[0] for i in range(3)]
        np.testing.assert_allclose(result["entries"][u], entries)
        np.testing.assert_allclose(result["mean"][u], [np.mean(entries[:2]), entries[2]])
        raw, raw_told = test * std + mean, predicted[u] * std + mean
        for g in range(2):
            own = owner == g
            np.testing.assert_allclose(
                result["global"][u, g], r2_global(raw[:, own], raw_told[:, own])
            )
    # The best constant: nothing per entry, but something globally, where means differ.
    floor = score(target, target.constant(), 2)
    assert (floor["entries"] <= 0).all() and (floor["entries"] > -0.2).all()
    assert floor["global"][0, 0] > 0.5 and abs(floor["global"][0, 1]) < 0.1
