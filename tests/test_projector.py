"""Projectors and what actions make of projections are naive loops, in values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextssl_jax.models.projector import ActionProjector, Projector

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(3, 2, 2, 5))  # [B, K, 2, F]
WIDTHS = (7, 6, 4)


@pytest.fixture(scope="module")
def variables():
    """Random values in the place of initial ones, so that each of them matters."""
    tree = jax.eval_shape(Projector(WIDTHS).init, jax.random.key(0), jnp.zeros((1, 5)))
    tree = jax.tree.map(lambda x: RNG.uniform(0.3, 1.5, x.shape).astype(np.float32), tree)
    for i in range(3):
        kernel = tree["params"][f"Dense_{i}"]["kernel"]
        kernel *= RNG.choice([-1, 1], kernel.shape)
    return tree


def naive(variables, z, train):
    """Linear, batch normalisation and ReLU, twice, and a linear layer without a bias."""
    params, running = variables["params"], variables["batch_stats"]
    x, new = z.reshape(-1, 5), {}
    for i in range(2):
        layer, norm = params[f"Dense_{i}"], params[f"BatchNorm_{i}"]
        stats = running[f"BatchNorm_{i}"]
        x = x @ layer["kernel"].astype(float) + layer["bias"]
        if train:
            mean = x.sum(axis=0) / len(x)
            var = ((x - mean) ** 2).sum(axis=0) / len(x)
            unbiased = var * len(x) / (len(x) - 1)
            new[f"BatchNorm_{i}"] = {
                "mean": 0.9 * stats["mean"] + 0.1 * mean,
                "var": 0.9 * stats["var"] + 0.1 * unbiased,
            }
        else:
            mean, var = stats["mean"], stats["var"]
        x = np.maximum(0, (x - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"])
    x = x @ params["Dense_2"]["kernel"]
    return x.reshape(*z.shape[:-1], -1), new


def test_the_last_layer_is_linear_without_a_bias(variables):
    assert set(variables["params"]["Dense_2"]) == {"kernel"}
    assert set(variables["batch_stats"]) == {"BatchNorm_0", "BatchNorm_1"}


def test_projecting_for_evaluation_is_a_naive_loop(variables):
    found = jax.jit(Projector(WIDTHS).apply)(variables, Z)
    expected, _ = naive(variables, Z, train=False)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_projecting_for_training_is_a_naive_loop_and_moves_the_statistics(variables):
    @jax.jit
    def train(z):
        return Projector(WIDTHS).apply(variables, z, train=True, mutable=["batch_stats"])

    found, updated = train(Z)
    expected, new = naive(variables, Z, train=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        updated["batch_stats"],
        new,
    )


def test_the_action_projector_projects_like_the_projector(variables):
    inner = {kind: {"projector": tree} for kind, tree in variables.items()}
    found = jax.jit(ActionProjector(WIDTHS, "linear").apply)(inner, Z)
    np.testing.assert_array_equal(found, jax.jit(Projector(WIDTHS).apply)(variables, Z))


@pytest.fixture(scope="module", params=["linear", "hypernetwork"])
def acting(request):
    """A predictor of 4 entries and 3 actions, with random parameters, and its function."""
    module = ActionProjector(WIDTHS, request.param)
    first = jax.random.key(0), jnp.zeros((1, 5)), jnp.zeros((1, 3))
    tree = jax.eval_shape(lambda *x: module.init(*x, method="project_and_predict"), *first)
    params = {"action": jax.tree.map(lambda x: RNG.normal(size=x.shape), tree["params"]["action"])}
    return (
        request.param,
        params,
        lambda q, p, a: module.apply({"params": q}, p, a, method="predict"),
    )


def naive_act(kind, params, p, a):
    """Of one projection [P] and one action [A]."""
    if kind == "linear":
        layer = params["action"]["Dense_0"]
        return np.concatenate([a, p]) @ layer["kernel"] + layer["bias"]
    kernel = params["action"]["kernel"]
    matrix = kernel[-1].T.copy()  # W of an action of 0
    for entry, by in zip(a, kernel[:-1], strict=True):
        matrix += entry * by.T
    return matrix @ p


def test_an_action_acts_as_a_naive_loop_says(acting):
    kind, params, act = acting
    p, a = RNG.normal(size=(2, 1, 3, 4)), RNG.normal(size=(2, 5, 3, 3))  # [B, 1 or E, K, ...]
    found = jax.jit(act)(params, p, a)
    assert found.shape == (2, 5, 3, 4)
    for b, e, k in np.ndindex(2, 5, 3):
        expected = naive_act(kind, params, p[b, 0, k], a[b, e, k])
        np.testing.assert_allclose(found[b, e, k], expected, atol=1e-4)


@pytest.mark.parametrize("acting", ["hypernetwork"], indirect=True)
def test_the_hypernetworks_matrix_is_affine_in_the_action_and_there_is_no_bias(acting):
    _, params, act = acting
    p, (a, b) = RNG.normal(size=4), RNG.normal(size=(2, 3))
    one, two, between, none = jax.jit(act)(params, p, np.stack([a, b, 3 * a - 2 * b, 0 * a]))
    np.testing.assert_allclose(between, 3 * one - 2 * two, atol=1e-4)
    assert np.abs(none).max() > 0.1  # affine: what does nothing need not predict 0
    np.testing.assert_allclose(jax.jit(act)(params, -2 * p, a), -2 * one, atol=1e-4)


def test_gradients_are_finite_differences(acting):
    kind, params, act = acting
    weights = RNG.normal(size=(2, 4))
    inputs = params, RNG.normal(size=(2, 4)), RNG.normal(size=(2, 3))
    slopes = jax.grad(lambda *inputs: jnp.sum(jnp.sin(act(*inputs)) * weights), (0, 1, 2))(*inputs)

    def naive(params, p, a):
        found = [naive_act(kind, params, *one) for one in zip(p, a, strict=True)]
        return np.sum(np.sin(found) * weights)

    for _ in range(3):
        along = jax.tree.map(lambda x: RNG.normal(size=x.shape), inputs)
        up, down = (jax.tree.map(lambda x, v, s=s: x + s * v, inputs, along) for s in (1e-5, -1e-5))
        slope = jax.tree.map(lambda g, v: np.sum(g * v), slopes, along)
        difference = (naive(*up) - naive(*down)) / 2e-5
        np.testing.assert_allclose(sum(jax.tree.leaves(slope)), difference, rtol=1e-4, atol=1e-4)
