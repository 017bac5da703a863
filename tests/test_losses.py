"""Losses equal the official code's recorded numbers and naive loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextssl_jax.losses import (
    info_nce_batch,
    info_nce_context,
    normalize,
    parameter_errors,
    predictor_loss,
)

RNG = np.random.default_rng(0)
H = normalize(jnp.asarray(RNG.normal(size=(3, 2, 8, 5)), jnp.float32))  # [B, E, 2K, P]


def test_batch_loss_and_gradient_are_the_official_ones(recorded):
    record = recorded("losses")

    def loss(x):
        h = normalize(x).reshape(2, 1, 16, 24)
        return info_nce_batch(h, temperature=0.1, clamp=True).loss.mean()

    value, grad = jax.value_and_grad(loss)(record["ntxent_embeddings"])
    np.testing.assert_allclose(value, record["ntxent_loss"], rtol=1e-5)
    np.testing.assert_allclose(grad, record["ntxent_grad"], atol=1e-5)


@pytest.mark.parametrize("clamp", [True, False])
def test_batch_loss_is_a_naive_loop(clamp):
    result = info_nce_batch(H, temperature=0.5, clamp=clamp)
    for e in range(2):
        rows = np.asarray(H[:, e], np.float64).reshape(-1, 5)
        cosine = rows @ rows.T
        logits = (np.maximum(cosine, 1e-7) if clamp else cosine) / 0.5
        for i in range(len(rows)):
            others = [j for j in range(len(rows)) if j != i]
            negatives = [j for j in others if j != i ^ 1]
            loss = np.log(np.exp(logits[i, others]).sum()) - logits[i, i ^ 1]
            got = [x[i // 8, e, i % 8] for x in result]
            best = max(others, key=lambda j, i=i: logits[i, j]) == i ^ 1
            expected = [loss, best, cosine[i, i ^ 1], cosine[i, negatives].mean()]
            np.testing.assert_allclose(got, expected, atol=1e-5)


def test_context_loss_is_a_naive_loop():
    result = info_nce_context(H, temperature=0.5, clamp=False)
    for b in range(3):
        for e in range(2):
            h = np.asarray(H[b, e], np.float64)
            for i in range(8):
                candidates = [j for j in range(8) if j % 2 != i % 2]  # the other kind's tokens
                logits = h[candidates] @ h[i] / 0.5
                loss = np.log(np.exp(logits).sum()) - h[i ^ 1] @ h[i] / 0.5
                np.testing.assert_allclose(result.loss[b, e, i], loss, atol=1e-5)
                np.testing.assert_allclose(result.positive[b, e, i], h[i ^ 1] @ h[i], atol=1e-5)


def test_the_clamp_takes_the_gradient_of_negative_cosines():
    x = jnp.asarray([[[[1.0, 0], [1, 0], [-1, 0.1], [-1, 0.1]]]])

    def pull(h, clamp):
        return info_nce_batch(h, temperature=0.1, clamp=clamp).loss[0, 0, 0]

    assert np.abs(jax.grad(pull)(x, True)[0, 0, 2]).max() == 0
    assert np.abs(jax.grad(pull)(x, False)[0, 0, 2]).max() > 0


def test_batch_negatives_stay_within_an_environment():
    grad = jax.grad(lambda h: info_nce_batch(h, temperature=0.1, clamp=False).loss[:, 0].sum())(H)
    assert np.abs(grad[:, 0]).max() > 0 and np.abs(grad[:, 1]).max() == 0


def test_context_negatives_stay_within_a_context():
    grad = jax.grad(lambda h: info_nce_context(h, temperature=0.1, clamp=False).loss[0].sum())(H)
    assert np.abs(grad[0]).max() > 0 and np.abs(grad[1:]).max() == 0


def test_predictor_loss_is_a_naive_loop():
    owner = np.array([0, 0, 0, 0, 1])
    predicted, target = RNG.normal(size=(2, 3, 8, 5)), RNG.normal(size=(2, 4, 5))
    shown = RNG.random((2, 3, 2)) < 0.5
    errors = parameter_errors(jnp.asarray(predicted), jnp.asarray(target), owner)
    total = 0.0
    for b, e, i in np.ndindex(2, 3, 8):
        for g in range(2):
            error = ((predicted[b, e, i] - target[b, i // 2]) ** 2)[owner == g].mean()
            np.testing.assert_allclose(errors[b, e, i, g], error, rtol=1e-4)
            total += error * shown[b, e, g]
    np.testing.assert_allclose(predictor_loss(errors, shown), total / (2 * 3 * 8), rtol=1e-4)


def test_hidden_groups_get_no_gradient_from_the_predictor_loss():
    owner, target = np.array([0, 0, 1]), jnp.ones((2, 4, 3))
    shown = jnp.zeros((2, 1, 2), bool).at[:, :, 0].set(True)

    def loss(predicted):
        return predictor_loss(parameter_errors(predicted, target, owner), shown)

    grad = jax.grad(loss)(jnp.zeros((2, 1, 8, 3)))
    assert np.abs(grad[..., :2]).min() > 0 and np.abs(grad[..., 2]).max() == 0


def test_normalise_survives_zero():
    grad = jax.grad(lambda x: normalize(x).sum())(jnp.zeros((2, 3)))
    assert np.isfinite(grad).all()
