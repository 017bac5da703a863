"""The context transformer as a head: embeddings of views after a context of pairs."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.errors import UserError
from contextssl_jax.masks import training_masks
from contextssl_jax.methods.heads import Embeddings, Head, build_action_projector, build_projector
from contextssl_jax.models.context_transformer import (
    Cache,
    ContextTransformer,
    embed_contexts,
    make_tokens,
)
from contextssl_jax.transforms import ParameterSpace


class Context(NamedTuple):
    """A context of S tokens that the transformer has encoded."""

    cache: Cache
    visible: jax.Array  # tokens that queries may attend to in each block, bool [L or 1, S]


def build_context_head(config: ConfigDict, space: ParameterSpace, *, use_actions: bool) -> Head:
    """Build the head from the sections `model` and `mask`.

    Args:
      config: the options.
      space: the conditioned groups' transform parameters and actions.
      use_actions: False sets the action of every token to 0.

    Raises:
      UserError: the attention heads do not divide the transformer's width.
    """
    model, mask = config.model, config.mask
    transformer = build_transformer(model)
    scale = action_scales(space, model) * use_actions

    def draw_masks(
        key: jax.Array | None,
        position: jax.Array,
        environments: int,
        tokens: int,
        set_pairs: int | None = None,
    ) -> jax.Array:
        options = mask.to_dict()
        if key is None:  # nothing is hidden but what is always hidden
            key, options = jax.random.key(0), options | _ALL_VISIBLE
        return training_masks(
            key,
            position,
            environments=environments,
            tokens=tokens,
            layers=transformer.blocks,
            set_pairs=set_pairs,
            **options,
        )

    def init(key: jax.Array, features: jax.Array, actions: jax.Array) -> dict[str, Any]:
        token = jnp.concatenate([features, actions], axis=-1)
        return dict(transformer.init(key, token[None], jnp.ones((1, 1, 1, 1), bool)))

    def embed_pairs(
        variables: Any,
        features: jax.Array,
        actions: jax.Array,
        position: jax.Array,
        key: jax.Array,
    ) -> tuple[Embeddings, Any]:
        tokens = make_tokens(features[:, None], actions * scale)
        masks = draw_masks(key, position, *tokens.shape[1:3])
        x, y = embed_contexts(transformer, variables, tokens, masks)
        return Embeddings(x, y, x), {}

    def encode_context(
        variables: Any, features: jax.Array, actions: jax.Array, key: jax.Array | None = None
    ) -> Context:
        tokens = make_tokens(features[None], actions[None] * scale)[0]
        # Queries take the place of the next pair's x, so their mask is that of its row.
        first = jnp.zeros((1,), jnp.int32)
        masks = draw_masks(key, first, 1, len(tokens) + 2, set_pairs=len(tokens) // 2)[:, 0, 0]
        inside, visible = masks[:, :-2, :-2], masks[:, -2, :-2]
        cache: Any = transformer.apply(variables, tokens, inside, method="prefix")
        return Context(cache, visible)

    def embed(
        variables: Any,
        context: Context | None,
        length: jax.Array | int,
        features: jax.Array,
        actions: jax.Array | None,
    ) -> jax.Array:
        if actions is None:  # as the y tokens, whose action is 0
            actions = jnp.zeros((*features.shape[:-1], len(scale)))
        tokens = jnp.concatenate([features, actions * scale], axis=-1)
        h: Any
        if context is None:  # each token is a context of its own
            h = transformer.apply(variables, tokens[:, None], jnp.ones((1, 1, 1, 1), bool))
            return h[:, 0]
        visible = context.visible & (jnp.arange(context.visible.shape[-1]) < length)
        h = transformer.apply(variables, tokens, context.cache, visible, method="query")
        return h

    lowest = mask.probability if mask.probability_low is None else mask.probability_low
    return Head(
        transformer,
        transformer.outputs,
        lowest < 1,  # at 1 every token attends to itself alone
        init,
        embed_pairs,
        encode_context,
        embed,
    )


def choose_heads(
    config: ConfigDict, space: ParameterSpace, axis: str | None, *, use_actions: bool, plus: bool
) -> dict[str, Head]:
    """Build a baseline's head, or with `plus` the context transformer in its place, by part."""
    if plus:
        return {"transformer": build_context_head(config, space, use_actions=use_actions)}
    if use_actions:
        return {"equivariant": build_action_projector(config.model, axis)}
    return {"projector": build_projector(config.model, axis)}


def build_transformer(model: ConfigDict) -> ContextTransformer:
    """Build the context transformer from the section `model`.

    Raises:
      UserError: the attention heads do not divide the width.
    """
    if model.transformer.width % model.transformer.heads:
        raise UserError(
            f"--config.model.transformer.heads: {model.transformer.heads} does not divide"
            f" --config.model.transformer.width={model.transformer.width}. Use a divisor."
        )
    return ContextTransformer(**model.transformer, dtype=jnp.dtype(model.dtype), remat=model.remat)


def action_scales(space: ParameterSpace, model: ConfigDict) -> np.ndarray:
    """Return the factor of each action entry at the transformer's read-in, float32 [A].

    Features of hundreds of entries drown a handful of standardized action entries. These get the
    factors that give every group's action the same root-mean-square norm, `action_scale`. Actions
    that are not standardized are not scaled either, as in the official code.

    Args:
      space: the conditioned groups.
      model: the section `model`.
    """
    entries = np.bincount(space.action_group_ids)[space.action_group_ids]
    scales = model.action_scale / np.sqrt(entries)
    return (scales if model.standardize_actions else np.ones_like(scales)).astype(np.float32)


_ALL_VISIBLE = {"probability": 0.0, "probability_low": None}
