"""What is erased, what is squeezed: of embeddings whose making is known."""

import numpy as np
import pytest

from contextssl_jax.evaluation.evaluators.erasure import explained_variance, linear_r2
from contextssl_jax.evaluation.scores import Target

RNG = np.random.default_rng(0)
N, M, P = 3000, 1000, 24
OWNER = np.array([0, 0, 1])


@pytest.fixture(scope="module")
def made():
    """Latents, and two orthogonal directions of embeddings for each."""
    t = RNG.normal(size=(N + M, 3))
    basis = np.linalg.qr(RNG.normal(size=(P, P)))[0]
    noise = RNG.normal(size=(N + M, P)) * 0.0
    target = Target(("a", "b", "c"), OWNER, np.zeros(3), np.ones(3), t[:N], t[N:])
    return t, basis, noise, target


def embed(made, scales, noise=0.05):
    t, basis, _, _ = made
    h = t @ (np.asarray(scales)[:, None] * basis[:3])
    h += noise * RNG.normal(size=(len(t), 5)) @ basis[3:8]  # orthogonal to all latents
    h = h.astype(np.float32)
    return h[None, :N], h[None, N:]


def test_what_is_squeezed_is_read_and_small(made):
    fit, test = embed(made, [1, 1, 1e-3])
    np.testing.assert_allclose(linear_r2(fit, test, made[3], 2), [[1, 1]], atol=0.01)
    shares = explained_variance(fit, test, made[3], 2)[0]
    assert shares[0] > 0.98 and abs(shares[1]) < 0.01


def test_what_is_erased_is_not_read(made):
    fit, test = embed(made, [1, 1, 0])
    read = linear_r2(fit, test, made[3], 2)[0]
    assert read[0] > 0.99 and abs(read[1]) < 0.03
    assert abs(explained_variance(fit, test, made[3], 2)[0, 1]) < 0.01


def test_shares_are_of_the_variance_also_through_a_curve(made):
    t, basis, _, target = made
    h = np.stack([t[:, 0] * t[:, 1], t[:, 2] * np.sqrt(3), RNG.normal(size=len(t))], axis=1)
    shares = explained_variance(h[None, :N], h[None, N:], target, 2)
    np.testing.assert_allclose(shares, [[0.2, 0.6]], atol=0.03)
    # A linear probe cannot predict a product, and no probe predicts another group.
    np.testing.assert_allclose(linear_r2(h[None, :N], h[None, N:], target, 2), [[0, 1]], atol=0.02)


def test_constant_embeddings_have_no_information(made):
    same = np.ones((1, N, 4), np.float32), np.ones((1, M, 4), np.float32)
    assert (explained_variance(*same, made[3], 2) == 0).all()
    np.testing.assert_allclose(linear_r2(*same, made[3], 2), 0, atol=0.01)


def test_conditions_are_apart_and_equal_entries_do_no_harm(made):
    one, other = embed(made, [1, 1, 1]), embed(made, [0, 0, 1])
    doubled = [np.concatenate([a, b]) for a, b in zip(one, other, strict=True)]
    doubled = [np.concatenate([h, h], axis=2) for h in doubled]
    read = linear_r2(*doubled, made[3], 2)
    np.testing.assert_allclose(read, [[1, 1], [0, 1]], atol=0.03)
