"""ContextSSL: tokens, masked actions, the loss, and equality of training and evaluation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from contextssl_jax.experiment import build_experiment
from contextssl_jax.masks import context_set_mask, pair_mask, training_masks
from contextssl_jax.methods import METHODS
from contextssl_jax.methods.base import mask_actions
from contextssl_jax.methods.context_head import action_scales
from contextssl_jax.models.context_transformer import make_tokens


@pytest.fixture
def config(config):
    config.mask.probability = 0.0
    config.data.contexts = 2
    return config


def prepare(config):
    """The method, its initial variables scaled up so that everything matters, and a batch."""
    experiment = build_experiment(config)
    state = experiment.init()
    params = jax.tree.map(lambda leaf: 2 * leaf, state.params)
    variables = {"params": params, "batch_stats": state.batch_stats}
    return experiment.method, variables, experiment.batches[0]


@functools.partial(jax.jit, static_argnums=0)
def loss_of(loss, variables, batch):
    return loss(variables["params"], variables["batch_stats"], batch, jax.random.key(0))


def test_each_groups_action_has_the_configured_norm_and_y_tokens_have_none(config):
    config.model.action_scale = 7.0
    method, _, _ = prepare(config)
    split = build_experiment(config).dataset.splits["train"]
    _, t = split.draw(np.random.default_rng(0), np.zeros(20000, int), 2)
    scaled = method.space.actions(t[:, 0], t[:, 1]) * action_scales(method.space, config.model)
    tokens = make_tokens(jnp.zeros((1, len(t), 2, 3)), scaled[None])
    actions = tokens[0, :, 3:].reshape(len(t), 2, 5)
    np.testing.assert_array_equal(actions[:, 1], 0)
    for entries in (slice(0, 4), slice(4, 5)):
        rms = np.sqrt(np.mean(np.sum(actions[:, 0, entries] ** 2, axis=1)))
        assert abs(rms / 7.0 - 1) < 0.02


def test_a_hidden_groups_action_is_zero():
    observed = jnp.asarray([[True, False], [False, False]])
    actions = jnp.ones((3, 2, 5))
    hidden = mask_actions(actions, observed, np.array([0, 0, 0, 0, 1]))
    np.testing.assert_array_equal(hidden[0], [[1, 1, 1, 1, 0], [0, 0, 0, 0, 0]])


def test_the_loss_in_all_environments_is_the_mean_of_each(config):
    config.mask.per_layer = False
    method, variables, batch = prepare(config)
    total, (_, metrics) = loss_of(method.loss, variables, batch)
    each = [
        loss_of(
            method.loss, variables, batch._replace(environments=batch.environments[:, i : i + 1])
        )
        for i in range(2)
    ]
    np.testing.assert_allclose(total, np.mean([loss for loss, _ in each]), rtol=1e-5)
    for i, group in enumerate(("crop", "blur")):
        found = metrics[f"predictor_r2/{group}_x"]
        np.testing.assert_allclose(found, each[i][1][1][f"predictor_r2/{group}_x"], rtol=1e-4)
        other = each[1 - i][1][1][f"predictor_r2/{group}_x"]
        assert np.isnan(other)  # a hidden group is not predicted


@pytest.mark.parametrize("form", ["causal", "set"])
@pytest.mark.parametrize("sparse", [False, True])
def test_evaluation_encodes_a_context_as_training_does(config, sparse, form):
    config.mask.update(probability=0.6, per_layer=True, context=form)
    method, variables, batch = prepare(config)
    k = batch.transform_params.shape[1]
    record = np.broadcast_to(batch.record[0], (k, 2, 16, 16, 3)).reshape(2 * k, 16, 16, 3)
    features = method.encode(variables, record, batch.transform_params[0].reshape(2 * k, -1))
    features = features.reshape(k, 2, -1)
    actions = method.space.actions(batch.transform_params[0, :, 0], batch.transform_params[0, :, 1])
    scaled = actions * action_scales(method.space, config.model)
    tokens = make_tokens(features[None], scaled[None])
    key, mask = None, pair_mask(2 * k)[None, None]
    if form == "set":  # of all pairs but the last, which is the query
        mask &= context_set_mask(2 * k, k - 1)
    if sparse:  # the last pair is the query: the context is what comes before it
        key = jax.random.key(3)
        blocks = config.model.transformer.blocks
        mask = training_masks(
            key,
            jnp.zeros(1, int),
            environments=1,
            tokens=2 * k,
            layers=blocks,
            set_pairs=k - 1,
            **config.mask,
        )[:, 0]
        assert (mask[:, :, -2].sum(axis=-1) < 2 * k - 1).any()
    params = {"params": variables["params"]["transformer"]}
    full = method.modules["transformer"].apply(params, tokens, mask)[0]
    full = full / np.linalg.norm(full, axis=-1, keepdims=True)
    before = features[: k - 1], actions[: k - 1]
    context = method.encode_context(variables, *(before if sparse else (features, actions)), key)
    # x_k, after the pairs before it; in a set, the last pair alone is a query.
    for pair in (k - 1,) if sparse or form == "set" else (0, 3, k - 1):
        h = method.embed(variables, context, 2 * pair, features[pair, :1], actions[pair][None])
        np.testing.assert_allclose(h[0], full[2 * pair], atol=1e-5)


def test_the_loss_is_infonce_plus_lambda_times_the_predictors_error(config):
    config.loss.predictor_weight = 3.0
    method, variables, batch = prepare(config)
    loss, (_, metrics) = loss_of(method.loss, variables, batch)
    parts = metrics["loss_contrastive"] + 3.0 * metrics["loss_predictor"]
    np.testing.assert_allclose(loss, parts, rtol=1e-6)


def test_the_encoders_contrast_is_added_with_its_weight_and_reaches_the_encoder_alone(config):
    config.model.projector.widths = (8, 6)
    plain, _, _ = prepare(config)
    config.loss.encoder_weight = 2.0
    method, variables, batch = prepare(config)
    params, own = variables["params"], {"batch_stats": {}}
    (loss, (statistics, metrics)) = loss_of(method.loss, variables, batch)
    without, _ = loss_of(plain.loss, variables | own, batch)
    np.testing.assert_allclose(loss, without + 2.0 * metrics["loss_encoder"], rtol=1e-6)
    assert set(statistics) == {"projector"} == set(variables["batch_stats"])

    # SimCLR's loss on the same features and projector.
    simclr = METHODS["simclr"](config, build_experiment(config).dataset, None)
    contrast, _ = loss_of(simclr.loss, variables, batch)
    np.testing.assert_allclose(metrics["loss_encoder"], contrast, rtol=1e-6)

    whole = jax.grad(lambda p: loss_of(method.loss, variables | {"params": p}, batch)[0])(params)
    alone = jax.grad(lambda p: loss_of(plain.loss, own | {"params": p}, batch)[0])(params)
    for part in ("transformer", "predictor"):
        jax.tree.map(np.testing.assert_array_equal, whole[part], alone[part])
    assert any(np.any(leaf) for leaf in jax.tree.leaves(whole["projector"]))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(alone["projector"]))


@pytest.mark.parametrize("negatives", ["batch", "context"])
def test_the_loss_falls_on_a_fixed_batch(config, negatives):
    config.loss.negatives = negatives
    config.mask.probability = 0.5
    config.data.pairs = 4
    config.model.transformer.blocks = 1
    method, variables, batch = prepare(config)
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(params, state):
        gradient = jax.value_and_grad(method.loss, has_aux=True)
        (loss, _), grads = gradient(params, {}, batch, jax.random.key(0))
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, loss

    params, state, losses = variables["params"], optimizer.init(variables["params"]), []
    for _ in range(60):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    assert losses[-1] < 0.6 * losses[0]
