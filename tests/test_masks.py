"""Masks hide what they say, through all layers, and are keyed by global indices alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextssl_jax.masks import context_set_mask, pair_mask, random_pair_mask, training_masks
from contextssl_jax.models.context_transformer import ContextTransformer

OPTIONS = dict(
    environments=2,
    tokens=12,
    layers=3,
    per_layer=True,
    per_context=True,
    hide_own_x=True,
    probability=0.7,
    probability_low=None,
)


def draw(position=(0, 1), seed: int = 0, **options: object) -> np.ndarray:
    key = jax.random.key(seed)
    return np.asarray(training_masks(key, jnp.array(position), **{**OPTIONS, **options}))


def test_pair_mask_is_the_official_one(recorded):
    np.testing.assert_array_equal(pair_mask(16), recorded("transformer")["pair_mask_16"])


def test_random_mask_hides_whole_pairs_of_each_row_but_never_the_row():
    mask = np.asarray(random_pair_mask(jax.random.key(0), 200, 0.8))
    off_diagonal = mask.copy()
    np.fill_diagonal(off_diagonal, False)
    assert mask.diagonal().all()
    pairs = mask.reshape(200, 100, 2)
    own = np.arange(200) // 2
    for row in range(200):
        others = np.arange(100) != own[row]
        assert (pairs[row, others, 0] == pairs[row, others, 1]).all()
    assert abs(mask.mean() - 0.2) < 0.02
    assert (mask[0] != mask[1]).any()  # the rows of a pair see different contexts


def test_probability_may_be_drawn_per_row_from_a_range():
    mask = np.asarray(random_pair_mask(jax.random.key(0), 400, 1.0, 0.0))
    visible = mask.mean(axis=1)
    assert visible.min() < 0.05 and visible.max() > 0.95
    assert abs(np.std(visible) - 12**-0.5) < 0.03  # uniform over the range


@pytest.mark.parametrize("probability, visible", [(0.0, 1.0), (1.0, 0.0)])
def test_probability_ends(probability, visible):
    mask = draw(probability=probability)
    base = np.asarray(pair_mask(12)) & ~np.eye(12, dtype=bool)
    assert (mask[..., base] == visible).all()


def test_shapes_and_what_is_drawn_anew():
    assert draw().shape == (3, 2, 2, 12, 12)
    assert draw(per_layer=False).shape == (1, 2, 2, 12, 12)
    assert draw(per_context=False).shape == (3, 1, 2, 12, 12)
    mask = draw()
    for other in (mask[:, :, ::-1], mask[:, ::-1], mask[::-1], draw(seed=1)):
        assert (mask != other).any()


def test_a_context_keeps_its_mask_wherever_it_is_drawn():
    np.testing.assert_array_equal(draw((5, 3))[:, 1], draw((3,))[:, 0])


def gradients(hide_own_x: bool) -> np.ndarray:
    """|d token i's embedding / d token j|, summed, of a 3-block transformer, [12, 12]."""
    model = ContextTransformer(width=16, blocks=3, heads=2, outputs=8)
    tokens = jax.random.normal(jax.random.key(0), (1, 12, 5))
    masks = draw((0,), environments=1, hide_own_x=hide_own_x, probability=0.2)[:, :, 0]
    variables = jax.jit(model.init)(jax.random.key(1), tokens, masks)
    jacobian = jax.jit(jax.jacrev(lambda x: model.apply(variables, x, masks)))(tokens)
    return np.abs(np.asarray(jacobian)).sum(axis=(0, 2, 3, 5))


def test_no_gradient_flows_from_a_y_token_to_its_own_x_or_to_the_future():
    flow = gradients(hide_own_x=True)
    pair, is_y = np.arange(12) // 2, np.arange(12) % 2 == 1
    future = np.arange(12) > np.arange(12)[:, None]
    own_x = is_y[:, None] & ~is_y & (pair[:, None] == pair)
    assert (flow[future | own_x] == 0).all()
    assert (flow[pair[:, None] > pair] > 0).mean() > 0.9  # what is allowed is used
    assert (flow.diagonal() > 0).all()


def test_without_the_pair_mask_y_sees_its_own_x():
    flow = gradients(hide_own_x=False)
    assert (flow[1::2, 0::2].diagonal() > 0).any()


def test_pairs_of_a_set_attend_to_themselves_and_queries_to_the_set():
    mask = np.asarray(context_set_mask(12, 3)) & np.asarray(pair_mask(12))
    pair = np.arange(12) // 2
    own = (pair[:, None] == pair) & np.asarray(pair_mask(12))
    seen = (pair[:, None] >= 3) & (pair < 3)
    np.testing.assert_array_equal(mask, own | seen)


def test_the_size_of_a_set_is_uniform_and_the_same_in_all_layers_and_rows():
    mask = draw(range(300), context="set", probability=0.0)
    assert (mask == mask[:1]).all()
    sizes = mask[0, :, :, -2, :-2].sum(axis=-1)  # tokens that the last x attends to
    found, counts = np.unique(sizes, return_counts=True)
    np.testing.assert_array_equal(found, [0, 2, 4, 6, 8, 10])
    assert counts.min() > 70  # of 600; expected 100, deviation 9
    for row in range(12):
        visible = np.minimum(sizes, 0 if row // 2 == 0 else 10)
        is_query = 2 * (row // 2) >= sizes
        others = mask[0, :, :, row].sum(axis=-1) - mask[0, :, :, row, row // 2 * 2 :].sum(axis=-1)
        np.testing.assert_array_equal(others, np.where(is_query, visible, 0))


@pytest.mark.parametrize("context, differs", [("set", False), ("causal", True)])
def test_the_order_of_a_set_has_no_effect_on_a_query(context, differs):
    model = ContextTransformer(width=16, blocks=3, heads=2, outputs=8)
    tokens = jax.random.normal(jax.random.key(0), (6, 2, 5))
    masks = draw((0,), environments=1, context=context, probability=0.0, set_pairs=5)[:, :, 0]
    variables = jax.tree.map(
        lambda leaf: 4 * leaf, model.init(jax.random.key(1), tokens.reshape(1, 12, 5), masks)
    )
    order = jnp.array([3, 1, 4, 0, 2, 5])  # the last pair is the query
    first, second = (
        np.asarray(model.apply(variables, x.reshape(1, 12, 5), masks))[0, -2]
        for x in (tokens, tokens[order])
    )
    # Sums over the set in another order.
    assert (np.abs(first - second).max() > 1e-4 * np.abs(first).max()) == differs
