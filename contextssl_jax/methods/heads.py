"""From features to embeddings: a head on the encoder, and the projector as one.

The context transformer is the other head; see context_head.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from contextssl_jax.errors import UserError
from contextssl_jax.models.context_transformer import interleave
from contextssl_jax.models.projector import ActionProjector, Projector


class Embeddings(NamedTuple):
    """Embeddings of a batch of pairs, not normalized, float32."""

    predicted: jax.Array  # z_r: x with its action, [B, E, K, P]; x alone if no action is used
    y: jax.Array  # view embedding of y, [B, E or 1, K, P]
    x: jax.Array  # view embedding of x, [B, 1, K, P]; as `predicted` for the transformer

    @property
    def tokens(self) -> jax.Array:
        """x_1 with its action, y_1, x_2, y_2, ..., [B, E, 2K, P]."""
        return interleave(self.predicted, self.y)


@dataclass(frozen=True)
class Head:
    """One Flax module with the functions that embed features; letters as in methods/base.py.

    Attributes:
      module: the Flax module whose variables the functions take.
      outputs: P.
      uses_context: True if embeddings depend on a context.
      init: (key, features [1, F], actions [1, A]) -> variables.
      embed_pairs: (variables, features [B, K, 2, F], actions [B, E, K, A], position int [B], key)
        -> (Embeddings, new batch statistics), for training. Actions are in the method's units and 0
        for groups that are not observed; `position` is the contexts' place in the global batch.
      encode_context: (variables, features [K, 2, F], actions [K, A], key or None) -> a context
        that serves `embed` for every prefix. With a key, masks drawn from it hide as much of the
        context as in training; with None all of it is visible.
      embed: (variables, context or None, length, features [N, F], actions [N, A] or None) ->
        embeddings [N, P], each after `length` tokens of the context. With actions, the predicted
        targets z_r; with None, the view embeddings z⁺.
    """

    module: nn.Module
    outputs: int
    uses_context: bool
    init: Callable[[jax.Array, jax.Array, jax.Array], dict[str, Any]]
    embed_pairs: Callable[..., tuple[Embeddings, Any]]
    encode_context: Callable[..., Any]
    embed: Callable[..., jax.Array]


def build_projector(model: ConfigDict, axis: str | None, part: tuple[int, int] = (0, 1)) -> Head:
    """Build a projector that uses no actions, from `model.projector`.

    Args:
      model: the section `model`.
      axis: name of the axis over devices, or None.
      part: (i, n): the projector's input is the i-th of n equal parts of the features.
    """
    module = Projector(tuple(model.projector.widths), axis, jnp.dtype(model.dtype))
    return _projector_head(module, part)


def build_action_projector(
    model: ConfigDict, axis: str | None, part: tuple[int, int] = (0, 1)
) -> Head:
    """Build a projector with a predictor of the action's effect; see build_projector."""
    options = model.projector
    dtype = jnp.dtype(model.dtype)
    module = ActionProjector(tuple(options.widths), options.predictor, axis, dtype)
    return _projector_head(module, part)


def _projector_head(module: Projector | ActionProjector, part: tuple[int, int]) -> Head:
    def select(features: jax.Array) -> jax.Array:
        which, parts = part
        if features.shape[-1] % parts:
            raise UserError(
                f"--config.method: it splits features into {parts} equal parts, which is not"
                f" possible with the encoder's {features.shape[-1]}. Choose another method or"
                " encoder."
            )
        return jnp.split(features, parts, axis=-1)[which]

    def predict(variables: Any, projected: jax.Array, actions: jax.Array) -> jax.Array:
        if not isinstance(module, ActionProjector):
            return projected
        predicted: Any = module.apply(variables, projected, actions, method="predict")
        return predicted

    def init(key: jax.Array, features: jax.Array, actions: jax.Array) -> dict[str, Any]:
        if isinstance(module, ActionProjector):
            return dict(module.init(key, select(features), actions, method="project_and_predict"))
        return dict(module.init(key, select(features)))

    def embed_pairs(
        variables: Any,
        features: jax.Array,
        actions: jax.Array,
        position: jax.Array,
        key: jax.Array,
    ) -> tuple[Embeddings, Any]:
        """Project both views in one call, and so in one set of batch statistics."""
        del position, key
        h, updated = module.apply(variables, select(features), train=True, mutable=["batch_stats"])
        x, y = h[:, None, :, 0], h[:, None, :, 1]
        embeddings = Embeddings(predict(variables, x, actions), y, x)
        return embeddings, updated.get("batch_stats", {})

    def encode_context(*args: Any) -> None:
        del args

    def embed(
        variables: Any,
        context: None,
        length: jax.Array | int,
        features: jax.Array,
        actions: jax.Array | None,
    ) -> jax.Array:
        del context, length
        h: Any = module.apply(variables, select(features))
        return h if actions is None else predict(variables, h, actions)

    return Head(module, module.widths[-1], False, init, embed_pairs, encode_context, embed)
