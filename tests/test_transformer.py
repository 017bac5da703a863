"""The transformer is the official one, and a cached context is the context."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contextssl_jax.masks import pair_mask
from contextssl_jax.models.context_transformer import Cache, ContextTransformer

KEY = jax.random.key(0)


def official_variables(record: dict[str, np.ndarray]) -> dict:
    """The recorded torch weights under our names; torch stores [out, in]."""

    def dense(name: str) -> dict:
        return {"kernel": record[f"{name}.weight"].T, "bias": record[f"{name}.bias"]}

    def norm(name: str) -> dict:
        return {"scale": record[f"{name}.weight"], "bias": record[f"{name}.bias"]}

    params = {
        "read_in": dense("gpt._read_in"),
        "read_out": dense("gpt._read_out"),
        "norm": norm("gpt.transformer.ln_f"),
    }
    for i in range(2):
        block = f"gpt.transformer.h.{i}"
        params[f"layers_{i}"] = {
            "norm_1": norm(f"{block}.ln_1"),
            "norm_2": norm(f"{block}.ln_2"),
            "qkv": dense(f"{block}.attn.c_attn"),
            "out": dense(f"{block}.attn.c_proj"),
            "up": dense(f"{block}.mlp.c_fc"),
            "down": dense(f"{block}.mlp.c_proj"),
        }
    return {"params": params}


def tokens_of(features: np.ndarray, actions: np.ndarray) -> np.ndarray:
    both = np.stack([actions, np.zeros_like(actions)], axis=1).reshape(len(features), -1)
    return np.concatenate([features, both], axis=1)


def first(length: int, cache: Cache) -> jax.Array:
    """Which tokens queries see: the context's first."""
    return jnp.arange(cache.keys.shape[1])[None] < length


OFFICIAL = ContextTransformer(width=64, blocks=2, heads=4, outputs=32)
SMALL = ContextTransformer(width=32, blocks=3, heads=2, outputs=8)


@functools.partial(jax.jit, static_argnums=0, static_argnames="method")
def apply(model: ContextTransformer, variables: dict, *inputs, method: str = "__call__"):
    return model.apply(variables, *inputs, method=method)


@functools.partial(jax.jit, static_argnums=0)
def init(model: ContextTransformer, x: jax.Array) -> dict:
    return model.init(KEY, x, pair_mask(x.shape[1])[None, None])


def small(tokens: int = 12) -> tuple[dict, jax.Array, Cache]:
    """Variables, a context [tokens, 7], and its cache. Weights are large enough to matter."""
    x = jax.random.normal(KEY, (tokens, 7))
    variables = init(SMALL, x[None])
    variables = jax.tree.map(lambda leaf: 5 * leaf, variables)
    return variables, x, apply(SMALL, variables, x, pair_mask(tokens)[None], method="prefix")


def assert_rounding(found: np.ndarray, expected: np.ndarray) -> None:
    """Assert that outputs of a few layers differ by rounding of the largest."""
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_full_pass_is_the_official_one(recorded):
    record = recorded("transformer")
    x = tokens_of(record["features"], record["actions"]).reshape(2, 16, -1)
    h = apply(OFFICIAL, official_variables(record), x, pair_mask(16)[None, None])
    assert_rounding(h.reshape(32, -1), record["full_output"])


def test_cached_queries_are_the_official_ones(recorded):
    record, variables = recorded("transformer"), official_variables(recorded("transformer"))
    context = tokens_of(record["context_features"], record["context_actions"])
    cache = apply(OFFICIAL, variables, context, pair_mask(16)[None], method="prefix")
    queries = np.concatenate([record["query_features"], record["query_actions"]], axis=1)
    for length, name in ((int(record["context_tokens"]), "cached"), (0, "no_context")):
        h = apply(OFFICIAL, variables, queries, cache, first(length, cache), method="query")
        assert_rounding(h, record[f"{name}_output"])


@pytest.mark.parametrize("length", [0, 2, 6, 12])
def test_a_cached_query_is_the_last_x_token_of_a_full_pass(length):
    variables, context, cache = small()
    queries = jax.random.normal(jax.random.key(1), (4, 7))
    h = apply(SMALL, variables, queries, cache, first(length, cache), method="query")
    for query, cached in zip(queries, h, strict=True):
        sequence = jnp.concatenate([context[:length], query[None]])[None]
        mask = pair_mask(14)[: length + 1, : length + 1][None, None]
        full = apply(SMALL, variables, sequence, mask)[0, -1]
        np.testing.assert_allclose(cached, full, atol=2e-5)


def test_length_zero_does_not_depend_on_the_context():
    variables, _, cache = small()
    queries = jax.random.normal(jax.random.key(1), (4, 7))
    other = jax.tree.map(lambda leaf: leaf + 1, cache)
    none = [
        apply(SMALL, variables, queries, c, first(0, c), method="query") for c in (cache, other)
    ]
    two = [apply(SMALL, variables, queries, c, first(2, c), method="query") for c in (cache, other)]
    np.testing.assert_array_equal(*none)
    assert np.abs(two[0] - two[1]).max() > 1e-3


def test_only_the_mask_distinguishes_positions():
    model = ContextTransformer(width=32, blocks=1, heads=2, outputs=8)
    x = jax.random.normal(KEY, (1, 9, 7))
    variables = jax.tree.map(lambda v: 5 * v, init(model, x))
    shuffled = x.at[:, :8].set(x[:, [4, 5, 0, 1, 6, 7, 2, 3]])  # earlier pairs in another order
    h = [apply(model, variables, v, pair_mask(9)[None, None])[0, -1] for v in (x, shuffled)]
    np.testing.assert_allclose(*h, atol=1e-5)


def test_bfloat16_keeps_parameters_and_embeddings_float32():
    model = ContextTransformer(width=32, blocks=2, heads=2, outputs=8, dtype=jnp.bfloat16)
    x = jax.random.normal(KEY, (2, 8, 7))
    variables = init(model, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    half = apply(model, variables, x, pair_mask(8)[None, None])
    full = apply(ContextTransformer(32, 2, 2, 8), variables, x, pair_mask(8)[None, None])
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, full, atol=0.02)


def test_initial_weights_are_the_official_laws():
    model = ContextTransformer(width=256, blocks=3, heads=4, outputs=64)
    x = jnp.zeros((1, 2, 40))
    params = init(model, x)["params"]
    block = params["layers_1"]
    for leaf, deviation in (
        (params["read_in"]["kernel"], 0.02),
        (block["qkv"]["kernel"], 0.02),
        (block["out"]["kernel"], 0.02 / 6**0.5),
        (block["down"]["kernel"], 0.02 / 6**0.5),
    ):
        assert abs(leaf.std() / deviation - 1) < 0.05
    assert all(np.abs(block[name]["bias"]).max() == 0 for name in ("qkv", "out", "up", "down"))
