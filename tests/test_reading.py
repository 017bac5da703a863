"""Views, batches and contexts: encoded once, read once, and the same however they are cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import debug
from contextssl_jax.errors import UserError
from contextssl_jax.evaluation.contexts import Conditions, EncodedContexts
from contextssl_jax.evaluation.reader import ForwardPasses
from contextssl_jax.evaluation.views import draw_eval_data, draw_views, identity_views
from contextssl_jax.experiment import build_experiment
from contextssl_jax.masks import pair_mask
from contextssl_jax.methods.base import mask_actions
from contextssl_jax.methods.context_head import action_scales
from contextssl_jax.models.context_transformer import make_tokens

ENVIRONMENTS = {
    "crop": np.array([True, False]),
    "crop+blur": np.array([True, True]),
    "none": np.array([False, False]),
}
CONDITIONS = Conditions(ENVIRONMENTS, (0, 2, 6))


@pytest.fixture
def experiment(config):
    return build_experiment(config)


@pytest.fixture
def variables(experiment):
    """Scaled up, so that the context matters."""
    return jax.tree.map(lambda leaf: 2 * leaf, experiment.init().variables)


def test_rows_are_the_records_views(experiment):
    split = experiment.dataset.splits["train"]
    views = draw_views(split, (0, 1), 5, 3)
    record, transform_params = views.rows(np.array([0, 7, 14]))
    for i, (r, v) in enumerate([(0, 0), (2, 1), (4, 2)]):
        np.testing.assert_array_equal(record[i], split.images[views.indices[r]])
        np.testing.assert_array_equal(transform_params[i], views.transform_params[r, v])
    assert views.total == 15 and views.part(slice(1, 3)).total == 6
    np.testing.assert_array_equal(views.labels, split.labels[views.indices])


def test_excluded_records_are_not_drawn(experiment):
    split = experiment.dataset.splits["test"]
    first = draw_views(split, (0, 1), 100, 1)
    second = draw_views(split, (0, 2), split.size - 100, 1, first.indices)
    assert sorted([*first.indices, *second.indices]) == list(range(split.size))


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_encoding_is_the_same_in_any_batches_and_on_four_devices(experiment, variables, batch):
    assert jax.local_device_count() == 4
    views = draw_views(experiment.dataset.splits["train"], (0, 1), 5, 3)
    reader = ForwardPasses(experiment.method, batch)
    z = reader.encode(reader.place(variables), views)
    whole = experiment.method.encode(variables, *views.rows(np.arange(15)))
    np.testing.assert_allclose(z.reshape(15, -1), whole, atol=1e-5)


def test_an_untouched_view_is_the_image_itself(experiment):
    dataset = experiment.dataset
    views = identity_views(
        draw_views(dataset.splits["train"], (0, 1), 4, 2), dataset.space.identity
    )
    record, transform_params = views.rows(np.arange(4))
    shown = dataset.pixels(dataset.render(record, transform_params))
    np.testing.assert_allclose(shown, record / 255, atol=2e-3)


def read(experiment, variables, conditions, seed=3, key=None):
    reader = ForwardPasses(experiment.method, 8)
    split = experiment.dataset.splits["train"]
    pairs = draw_views(split, (0, seed), conditions.lengths[-1] // 2, 2)
    contexts = EncodedContexts(
        reader, reader.place(variables), experiment.dataset.space, conditions, pairs, key
    )
    views = draw_views(split, (0, 9), 5, 2)
    return contexts, reader.encode(reader.place(variables), views), pairs, views


def test_every_condition_is_a_full_pass_over_its_context(experiment, variables):
    """Cached ≡ full: each query goes through the transformer with its context, token by token."""
    contexts, z, pairs, views = read(experiment, variables, CONDITIONS)
    method, space = experiment.method, experiment.dataset.space
    scales = action_scales(space, debug.get_config().model)
    transformer = jax.jit(method.modules["transformer"].apply)
    rng = np.random.default_rng(0)
    actions = rng.normal(size=(5, 2, 5)).astype(np.float32)
    plain, requested = contexts.view_embeddings(z), contexts.predicted_targets(z, actions)
    assert plain.shape == (5 + 2, 5, 2, 16) == (CONDITIONS.size, 5, 2, 16)
    assert requested.shape == (3, 3, 5, 2, 16)
    z_pairs = method.encode(variables, *pairs.rows(np.arange(6))).reshape(3, 2, -1)
    result = space.actions(pairs.transform_params[:, 0], pairs.transform_params[:, 1])
    for e, (name, shown) in enumerate(ENVIRONMENTS.items()):
        hidden = mask_actions(result, shown, space.action_group_ids)
        for c, length in enumerate(CONDITIONS.lengths):
            for h, a in (
                (plain[CONDITIONS.row(name, length), 4, 1], np.zeros(5, np.float32)),
                (requested[e, c, 4, 1], mask_actions(actions[4, 1], shown, space.action_group_ids)),
            ):
                # The query as the x of one more pair: its y is never seen, so any will do.
                pair = jnp.stack([z[4, 1], jnp.zeros_like(z[4, 1])])[None]
                tokens = make_tokens(
                    jnp.concatenate([z_pairs[: length // 2], pair])[None],
                    jnp.concatenate([hidden[: length // 2], a[None]])[None] * scales,
                )
                mask = pair_mask(length + 2)[None, None]
                params = {"params": variables["params"]["transformer"]}
                full = transformer(params, tokens, mask)[0, -2]
                # Rounding of a few layers, divided by the norm; measured: 9e-7.
                np.testing.assert_allclose(h, full / np.linalg.norm(full), atol=2e-5)


def test_length_zero_depends_on_no_context(experiment, variables):
    first, z, _, _ = read(experiment, variables, CONDITIONS, seed=3)
    second, _, _, _ = read(experiment, variables, CONDITIONS, seed=4)
    zero = [CONDITIONS.row(name, 0) for name in ENVIRONMENTS]
    assert zero == [0, 0, 0]
    np.testing.assert_array_equal(first.view_embeddings(z)[0], second.view_embeddings(z)[0])
    assert np.abs(first.view_embeddings(z)[1:] - second.view_embeddings(z)[1:]).max() > 1e-3


def test_sparse_contexts_are_drawn_by_their_key(config, variables):
    config.mask.probability = 0.7
    experiment = build_experiment(config)
    dense, z, _, _ = read(experiment, variables, CONDITIONS)
    one, other, again = (
        read(experiment, variables, CONDITIONS, key=jax.random.key(k))[0].view_embeddings(z)
        for k in (0, 1, 0)
    )
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-3 and np.abs(one - dense.view_embeddings(z)).max() > 1e-3
    np.testing.assert_allclose(one[0], dense.view_embeddings(z)[0], atol=1e-6)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("seed", range(3))
def test_contexts_are_of_other_records_than_the_views_embedded_after_them(
    config, experiment, split, seed
):
    config.eval.update(context_split=split, draws=3, seed=seed)
    monitored = draw_eval_data(config.eval, experiment.dataset, 14)
    views = {"train": [monitored.fit], "test": [monitored.test, monitored.retrieval]}[split]
    used = {index for one in views for index in one.indices}
    assert len(monitored.contexts) == 3
    for views in monitored.contexts:
        assert len(views.indices) == 7 and not used & {*views.indices}
    assert len({tuple(views.indices) for views in monitored.contexts}) == 3
    again = draw_eval_data(config.eval, experiment.dataset, 14)
    jax.tree.map(np.testing.assert_array_equal, monitored, again)


@pytest.mark.parametrize(
    "options, longest, message",
    [
        (dict(fit_records=999), 14, "eval.fit_records: 999 records, but the train split has 256"),
        (dict(test_records=999), 14, "eval.test_records: 999"),
        (dict(images=200), 14, "eval.images: 200 records, but the test split has 128"),
        (dict(context_split="test"), 200, "a context of 200 tokens needs 100 records, but the"),
        (dict(), 600, "a context of 600 tokens needs 300 records, but the train split has 128"),
        (dict(fit_records=250), 14, "train split has 6 .* lower --config.eval.fit_records, or"),
        (dict(context_split="dev"), 14, "eval.context_split: unknown value 'dev'"),
    ],
)
def test_too_few_records_are_an_error(config, experiment, options, longest, message):
    config.eval.update(options)
    with pytest.raises(UserError, match=message):
        draw_eval_data(config.eval, experiment.dataset, longest)


def test_orders_are_permutations_of_one_context(config, experiment):
    config.eval.update(draws=3, draws_of="orders")
    drawn = draw_eval_data(config.eval, experiment.dataset, 14).contexts
    config.eval.draws_of = "contexts"
    first = draw_eval_data(config.eval, experiment.dataset, 14).contexts[0]
    order = np.argsort(first.indices)
    assert len({tuple(one.indices) for one in drawn}) == 3
    for one in drawn:
        own = np.argsort(one.indices)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(first), strict=True):
            np.testing.assert_array_equal(a[own], b[order])


def test_a_contexts_mask_can_be_chosen_for_evaluation(config, variables):
    def embeddings(method, dataset):
        reader, split = ForwardPasses(method, 8), dataset.splits["train"]
        pairs = draw_views(split, (0, 3), 3, 2)
        contexts = EncodedContexts(reader, variables, dataset.space, CONDITIONS, pairs, None)
        return contexts.view_embeddings(reader.encode(variables, draw_views(split, (0, 9), 5, 2)))

    config.eval.context_mask = "set"
    experiment = build_experiment(config)
    causal = embeddings(experiment.method, experiment.dataset)
    chosen = embeddings(experiment.eval_method, experiment.dataset)
    config.eval.context_mask, config.mask.context = None, "set"
    experiment = build_experiment(config)
    trained = embeddings(experiment.eval_method, experiment.dataset)
    np.testing.assert_array_equal(chosen, trained)
    assert np.abs(chosen - causal).max() > 1e-3
