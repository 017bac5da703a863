"""What methods read and embed, for training and through the interface of the evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quick import compiled, run
from small_methods import small, small_config

from contextssl_jax.errors import UserError
from contextssl_jax.evaluation.contexts import EncodedContexts
from contextssl_jax.evaluation.evaluate import build_conditions
from contextssl_jax.evaluation.reader import ForwardPasses
from contextssl_jax.evaluation.views import draw_views
from contextssl_jax.losses import normalize
from contextssl_jax.methods import METHODS

ALONE = (("mask.probability", 1.0),)
PLUS = ("simclr_plus", "vicreg_plus", "equimod_plus", "sen_plus")
FEATURES = np.random.default_rng(0).normal(size=(4, 3, 2, 8)).astype(np.float32)
ACTIONS = np.random.default_rng(1).normal(size=(4, 2, 3, 5)).astype(np.float32)


def loss_of(one, batch=None, params=None):
    def loss(params):
        batch_ = one.batch if batch is None else batch
        return one.method.loss(params, one.batch_stats, batch_, jax.random.key(1))

    value, grads = run(jax.value_and_grad(loss, has_aux=True), params or one.params)
    return value[0], value[1][1], grads


def own(one, name):
    parts = one.variables
    return {kind: parts[kind][name] for kind in parts if name in parts[kind]}


@pytest.mark.parametrize("name", METHODS)
def test_methods_with_a_transformer_read_contexts_unless_tokens_see_themselves_alone(name):
    uses_context = name in ("contextssl", "supervised", *PLUS)
    assert small(name).method.uses_context == uses_context
    assert not small(name, ALONE).method.uses_context
    seen_by_some = (*ALONE, ("mask.probability_low", 0.5))
    assert small(name, seen_by_some).method.uses_context == uses_context


@pytest.mark.parametrize("name, parts", [
    ("simclr", ["projector"]), ("vicreg", ["projector"]), ("sen", ["equivariant"]),
    ("equimod", ["projector", "equivariant"]), ("sie", ["invariant", "equivariant"]),
    ("simclr_plus", ["transformer"]), ("vicreg_plus", ["transformer"]),
    ("sen_plus", ["transformer"]), ("equimod_plus", ["projector", "transformer"]),
    ("contextssl", ["transformer", "predictor"]),
    ("supervised", ["transformer", "predictor", "classifier"]),
])  # fmt: skip
def test_the_parts_of_a_method(name, parts):
    one = small(name)
    assert list(one.method.modules) == ["encoder", *parts]
    assert set(one.params) == {"encoder", *parts}
    projectors = {"projector", "invariant", "equivariant"}
    assert set(one.batch_stats) == projectors & set(parts)


@pytest.mark.parametrize("name", ["simclr", "sen", "equimod", "sie"])
def test_embeddings_are_projections_and_where_actions_take_them(name):
    one = small(name)
    head, features, actions = list(one.method.heads)[-1], FEATURES[:, 0, 0], ACTIONS[:, 0, 0]
    module, variables = one.method.modules[head], own(one, head)
    half = features[:, 4:] if name == "sie" else features

    @jax.jit
    def embed(features, actions):
        return one.method.embed(one.variables, None, 0, features, actions)

    z = module.apply(variables, half)  # with the running statistics
    plain, requested = embed(features, None), embed(features, actions)
    np.testing.assert_allclose(plain, normalize(z), atol=1e-5)
    expected = z
    if name != "simclr":
        expected = module.apply(variables, z, actions, method="predict")
        assert np.abs(requested - plain).max() > 0.1
    np.testing.assert_allclose(requested, normalize(expected), atol=1e-5)
    assert one.method.encode_context(one.variables, FEATURES[0], ACTIONS[0, 0]) is None


@pytest.mark.parametrize("name", ["simclr", "sen", "sie"])
def test_training_projects_both_views_in_one_batch(name):
    one = small(name)
    head = list(one.method.heads)[-1]
    module, variables = one.method.modules[head], own(one, head)
    given = variables, FEATURES, ACTIONS, jnp.arange(4), jax.random.key(0)
    projected, stats = run(one.method.heads[head].embed_pairs, *given)
    half = FEATURES[..., 4:] if name == "sie" else FEATURES
    z, updated = run(
        lambda z: module.apply(variables, z, train=True, mutable=["batch_stats"]), half
    )
    np.testing.assert_allclose(projected.x[:, 0], z[:, :, 0], atol=1e-5)
    np.testing.assert_allclose(projected.y[:, 0], z[:, :, 1], atol=1e-5)
    expected = z[:, None, :, 0]
    if name != "simclr":
        expected = module.apply(variables, expected, ACTIONS, method="predict")
    np.testing.assert_allclose(projected.predicted, expected, atol=1e-5)
    for a, b in zip(*map(jax.tree.leaves, (stats, updated["batch_stats"])), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    tokens = projected.tokens.reshape(4, -1, 3, 2, z.shape[-1])
    np.testing.assert_array_equal(tokens[:, :, :, 0], projected.predicted)
    np.testing.assert_array_equal(tokens[:, -1, :, 1], projected.y[:, 0])


def test_sies_heads_see_a_half_each():
    heads = small("sie").method.heads
    for name, seen in (("invariant", slice(0, 4)), ("equivariant", slice(4, 8))):

        def project(features, name=name):
            variables = own(small("sie"), name)
            projected, _ = heads[name].embed_pairs(variables, features, ACTIONS, None, None)
            return sum(jnp.sum(jnp.sin(x)) for x in projected)

        slopes = np.abs(run(jax.grad(project), FEATURES)).max(axis=(0, 1, 2))
        assert (slopes[seen] > 0).all() and (np.delete(slopes, seen) == 0).all()


def test_an_encoder_with_an_odd_number_of_features_is_an_error():
    with pytest.raises(
        UserError, match="2 equal parts, which is not possible with the encoder's 7"
    ):
        small("sie").method.heads["invariant"].init(None, jnp.zeros((1, 7)), jnp.zeros((1, 5)))


@pytest.mark.parametrize("name, uses_actions", [
    ("simclr_plus", False), ("vicreg_plus", False), ("simclr", False), ("vicreg", False),
    ("sen_plus", True), ("equimod_plus", True), ("sen", True), ("equimod", True), ("sie", True),
])  # fmt: skip
def test_methods_without_actions_do_not_depend_on_them(name, uses_actions):
    one = small(name)

    def loss(environments):
        batch = one.batch._replace(environments=environments)
        return one.method.loss(one.params, one.batch_stats, batch, jax.random.key(1))[0]

    shown = np.ones_like(one.batch.environments)
    loss = compiled(loss, shown)
    assert bool(loss(shown) != loss(~shown)) == uses_actions


def test_no_token_depends_on_another_where_tokens_see_themselves_alone():
    for options, depends in ((ALONE, False), ((), True)):
        one = small("simclr_plus", options)
        head, variables = one.method.heads["transformer"], own(one, "transformer")

        def entries(z, head=head, variables=variables):
            given = z[None], ACTIONS[:1], jnp.zeros(1, int), jax.random.key(0)
            return head.embed_pairs(variables, *given)[0].tokens.sum(axis=-1)[0, 0]

        slopes = np.abs(run(jax.jacrev(entries), FEATURES[0])).sum(axis=-1).reshape(6, 6)
        assert (np.diag(slopes) > 0).all()
        assert (slopes - np.diag(np.diag(slopes)) > 0).any() == depends


def test_a_transformer_without_context_embeds_as_in_training():
    """Through all that an evaluation calls, which reads no context then."""
    one = small("sen_plus", ALONE)
    config = small_config("sen_plus")
    conditions = build_conditions(config.eval, one.experiment)
    assert conditions.lengths == (0,) and list(conditions.environments) == ["crop", "blur"]
    reader = ForwardPasses(one.method, 8)
    variables = reader.place(one.variables)
    views = draw_views(one.experiment.dataset.splits["test"], (0,), 2, 2)
    context = EncodedContexts(reader, variables, one.method.space, conditions, views, None)
    views, targets = (
        context.view_embeddings(FEATURES[0, :, 1]),
        context.predicted_targets(FEATURES[0, :, 0], ACTIONS[0, 0]),
    )
    assert views.shape == (1, 3, 6) and targets.shape == (2, 1, 3, 6)
    head = one.method.heads["transformer"]
    shown = ACTIONS[:1, 0] * (np.array([0, 0, 0, 0, 1]) == np.arange(2)[:, None, None])
    given = FEATURES[:1], shown[None], jnp.zeros(1, int), jax.random.key(0)
    projected, _ = run(head.embed_pairs, own(one, "transformer"), *given)
    for e in range(2):
        np.testing.assert_allclose(targets[e, 0], normalize(projected.predicted[0, e]), atol=1e-5)
    np.testing.assert_allclose(views[0], normalize(projected.y[0, 0]), atol=1e-5)


def test_sen_plus_is_contextssl_without_the_predictors_error():
    whole, plain = small("contextssl", (("loss.predictor_weight", 0.0),)), small("sen_plus")
    params = {name: whole.params[name] for name in plain.params}
    loss, metrics, grads = loss_of(plain, params=params)
    expected, all_metrics, all_grads = loss_of(whole)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    for name, value in metrics.items():
        np.testing.assert_allclose(value, all_metrics[name], rtol=1e-6)
    for part, tree in grads.items():
        for a, b in zip(*map(jax.tree.leaves, (tree, all_grads[part])), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
