"""What all methods share: initial variables, embedding of a batch, functions for evaluation."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from contextssl_jax.data.contexts import ContextBatch
from contextssl_jax.data.dataset import Record
from contextssl_jax.losses import normalize
from contextssl_jax.methods.base import (
    Method,
    Predictions,
    Variables,
    observed_actions,
    variables_of,
)
from contextssl_jax.methods.heads import Embeddings, Head
from contextssl_jax.methods.view_encoder import ViewEncoder
from contextssl_jax.transforms import ParameterSpace


def embed_batch(
    encoder: ViewEncoder,
    heads: Mapping[str, Head],
    space: ParameterSpace,
    params: Any,
    batch_stats: Any,
    batch: ContextBatch,
    key: jax.Array,
) -> tuple[dict[str, Embeddings], Any]:
    """Return the embeddings of every head for training, and the new batch statistics."""
    features, updated = encoder.encode_pairs(
        params["encoder"], batch_stats.get("encoder", {}), batch
    )
    statistics, embeddings = {"encoder": updated}, {}
    actions = observed_actions(space, batch)
    for name, head in heads.items():
        own = variables_of(name, params, batch_stats)
        embeddings[name], statistics[name] = head.embed_pairs(
            own, features, actions, batch.position, key
        )
    return embeddings, {name: statistics[name] for name in batch_stats}


def assemble_method(
    space: ParameterSpace,
    encoder: ViewEncoder,
    heads: Mapping[str, Head],
    loss: Callable[..., Any],
    *,
    readouts: Mapping[str, nn.Module] | None = None,
    predict: Callable[[Variables, jax.Array], Predictions] | None = None,
    target_classes: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    independent_contexts: bool = False,
) -> Method:
    """Return a method; see `Method`.

    Args:
      space: the conditioned groups' transform parameters and actions.
      encoder: renders and encodes views.
      heads: by part; the last one's outputs are the embeddings.
      loss: see `Method`.
      readouts: modules that predict from embeddings of length 1, by part.
      predict: see `Method`; by default nothing is predicted.
      target_classes: see `Method`; by default the labels themselves.
      independent_contexts: see `Method`.
    """
    modules = {
        "encoder": encoder.module,
        **{name: head.module for name, head in heads.items()},
        **(readouts or {}),
    }
    last, head = list(heads.items())[-1]

    def init(key: jax.Array, batch: ContextBatch) -> Variables:
        keys = dict(zip(modules, jax.random.split(key, len(modules)), strict=True))
        features, parts = encoder.init(keys["encoder"], batch)
        parts = {"encoder": parts}
        actions = jnp.zeros((1, len(space.action_mean)))
        for name, one in heads.items():
            parts[name] = one.init(keys[name], features, actions)
        for name, module in (readouts or {}).items():
            parts[name] = dict(module.init(keys[name], jnp.zeros((1, head.outputs))))
        return {
            "params": {name: part["params"] for name, part in parts.items()},
            "batch_stats": {
                name: part["batch_stats"] for name, part in parts.items() if "batch_stats" in part
            },
        }

    def encode(variables: Variables, record: Record, transform_params: jax.Array) -> jax.Array:
        own = variables_of("encoder", **variables)
        return encoder.encode(own["params"], own["batch_stats"], record, transform_params)

    def encode_context(
        variables: Variables,
        features: jax.Array,
        actions: jax.Array,
        key: jax.Array | None = None,
    ) -> Any:
        return head.encode_context(variables_of(last, **variables), features, actions, key)

    def embed(
        variables: Variables,
        context: Any,
        length: jax.Array | int,
        features: jax.Array,
        actions: jax.Array | None,
    ) -> jax.Array:
        own = variables_of(last, **variables)
        return normalize(head.embed(own, context, length, features, actions))

    return Method(
        space=space,
        modules=modules,
        heads=heads,
        uses_context=head.uses_context,
        init=init,
        loss=loss,
        encode=encode,
        encode_context=encode_context,
        embed=embed,
        predict=predict or (lambda variables, embeddings: Predictions()),
        target_classes=target_classes or (lambda labels, observed: labels),
        independent_contexts=independent_contexts,
    )
