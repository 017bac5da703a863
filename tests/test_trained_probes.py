"""Probes trained together are those trained alone, and they find what is there."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from contextssl_jax.evaluation.trained_probes import (
    Training,
    apply_layers,
    epochs,
    fit_classifiers,
    fit_parameter_probes,
    init_layers,
    inputs_of,
)

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
N = 60


def problem(u=3):
    h = jnp.asarray(RNG.normal(size=(u, N, 2, 4)).astype(np.float32))
    single = jnp.asarray(RNG.normal(size=(2 * N, 2)).astype(np.float32))
    pair = jnp.asarray(RNG.normal(size=(N, 3)).astype(np.float32))
    return h, {"single": single, "pair": pair}


def test_all_probes_together_are_each_alone():
    h, targets = problem()
    training = Training(20, 8, 1e-2)
    together = fit_parameter_probes(KEY, h, targets, (5,), training)
    for i in range(len(h)):
        alone = fit_parameter_probes(KEY, h[i : i + 1], targets, (5,), training)
        ours = jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], together)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, alone)
    # Other targets must not touch a probe either.
    changed = targets | {"pair": 2 * targets["pair"]}
    other = fit_parameter_probes(KEY, h, changed, (5,), training)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        *({p: layers["single"] for p, layers in x.items()} for x in (together, other)),
    )
    assert np.abs(other["mlp"]["pair"][0]["w"] - together["mlp"]["pair"][0]["w"]).max() > 1e-3


def test_the_linear_probe_is_a_naive_loop_of_adam():
    h, targets = problem(1)
    training = Training(25, 8, 1e-2)
    fitted = fit_parameter_probes(KEY, h, targets, (5,), training)["linear"]["pair"]
    layer = jax.tree.map(lambda leaf: leaf[0], init_layers(jax.random.fold_in(KEY, 1), 1, (8, 3)))
    optimizer = optax.adam(1e-2)
    state, x = optimizer.init(layer), np.asarray(h[0]).reshape(N, 8)

    def loss(layer, rows):
        result = x[rows] @ layer[0]["w"] + layer[0]["b"]
        return jnp.mean((result - targets["pair"][rows]) ** 2)

    for rows in np.asarray(epochs(jax.random.fold_in(KEY, 4), N, training)):
        updates, state = optimizer.update(jax.grad(loss)(layer, rows), state)
        layer = optax.apply_updates(layer, updates)
    np.testing.assert_allclose(fitted[0]["w"][0], layer[0]["w"], atol=1e-5)


def test_each_epoch_sees_every_record_once():
    order = np.asarray(epochs(KEY, 12, Training(5, 8, 1.0))).reshape(-1)
    for epoch in (order[:12], order[12:24], order[24:36]):
        assert sorted(epoch) == list(range(12))
    assert order.shape == (40,) and not np.array_equal(order[:12], order[12:24])


def test_an_mlp_predicts_what_a_linear_probe_cannot():
    x = RNG.normal(size=(2000, 2, 3)).astype(np.float32)
    target = np.abs(x[..., :1]).reshape(-1, 1) - 0.8
    fitted = fit_parameter_probes(
        KEY, jnp.asarray(x)[None], {"single": jnp.asarray(target)}, (32,), Training(600, 128, 5e-3)
    )
    inputs = inputs_of(jnp.asarray(x)[None])["single"]
    errors = {
        probe: float(jnp.mean((apply_layers(by["single"], inputs)[0] - target) ** 2))
        for probe, by in fitted.items()
    }
    assert errors["mlp"] < 0.1 * target.var() < 0.8 * errors["linear"]


@pytest.mark.parametrize("u", [1, 2])
def test_classifiers_learn_from_their_own_subset_alone(u):
    labels = RNG.integers(0, 3, 300)
    centres = RNG.normal(size=(u, 3, 5)) * 3
    x = jnp.asarray(centres[:, labels] + RNG.normal(size=(u, 300, 5)), jnp.float32)
    subsets = [np.arange(300), np.arange(30)]
    training = Training(200, 16, 1e-2)
    layers = fit_classifiers(KEY, x, jnp.asarray(labels), subsets, 3, training)
    result = apply_layers(layers, jnp.tile(x, (2, 1, 1))).argmax(axis=-1).reshape(2, u, 300)
    assert ((result == labels).mean(axis=-1) > 0.85).all()
    # What lies outside the second subset changes the first classifier, not the second.
    scrambled = x.at[:, 30:].set(0.0)
    other = fit_classifiers(KEY, scrambled, jnp.asarray(labels), subsets, 3, training)
    np.testing.assert_allclose(layers[0]["w"][u:], other[0]["w"][u:], atol=1e-6)
    assert np.abs(layers[0]["w"][:u] - other[0]["w"][:u]).max() > 1e-2
