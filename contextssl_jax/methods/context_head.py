"""The context transformer as a head: pairs that were read before decide how a view is embedded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.errors import UserError
from contextssl_jax.masks import training_masks
from contextssl_jax.methods.base import Variables
from contextssl_jax.methods.heads import Projected
from contextssl_jax.models.context_transformer import Cache, ContextTransformer
from contextssl_jax.transforms import ParameterSpace


class Context(NamedTuple):
    """A context of S tokens that has been read."""

    cache: Cache
    seen: jax.Array  # tokens that queries see in each block, bool [L or 1, S]


@dataclass(frozen=True)
class ContextHead:
    """Embeds tokens (z_x, a), (z_y, 0), ... of contexts; see Head for the functions.

    Attributes:
      module: tokens to embeddings.
      action_owner: group of each action entry, int [A].
      action_scale: root-mean-square norm of each group's action at the read-in. Features of
        hundreds of entries drown a handful of action entries of unit size. At 0 no action is told.
      draw_masks: (key, positions [B], E, tokens) -> masks, see training_masks; without a key, only
        what is hidden always is hidden.
      reads: False where masks hide all but the token itself.
    """

    module: ContextTransformer
    action_group_ids: np.ndarray
    action_scale: float
    draw_masks: Callable[[jax.Array | None, jax.Array, int, int], jax.Array]
    uses_context: bool

    @property
    def outputs(self) -> int:
        """See Head."""
        return self.module.outputs

    def init(self, key: jax.Array, features: jax.Array, actions: jax.Array) -> Variables:
        """See Head."""
        token = jnp.concatenate([features, actions], axis=-1)
        return dict(self.module.init(key, token[None], jnp.ones((1, 1, 1, 1), bool)))

    def project(
        self,
        variables: Variables,
        features: jax.Array,
        actions: jax.Array,
        position: jax.Array,
        key: jax.Array,
    ) -> tuple[Projected, Any]:
        """See Head."""
        b, e, k, _ = actions.shape
        tokens = self.tokens(features[:, None], actions)
        masks = self.draw_masks(key, position, e, 2 * k)
        masks = jnp.broadcast_to(masks, (len(masks), b, e, 2 * k, 2 * k))
        h: Any = self.module.apply(
            variables,
            tokens.reshape(b * e, 2 * k, -1),
            masks.reshape(len(masks), b * e, 2 * k, 2 * k),
        )
        h = h.reshape(b, e, k, 2, -1)
        return Projected(h[:, :, :, 0], h[:, :, :, 1], h[:, :, :, 0]), {}

    def encode_context(
        self,
        variables: Variables,
        features: jax.Array,
        actions: jax.Array,
        key: jax.Array | None,
    ) -> Context:
        """See Head: keys and values of the context's 2K tokens."""
        tokens = self.tokens(features[None], actions[None])[0]
        # Queries are one more x token, so that they see what the x of a next pair would.
        masks = self.draw_masks(key, jnp.zeros((1,), jnp.int32), 1, len(tokens) + 2)[:, 0, 0]
        inside, seen = masks[:, :-2, :-2], masks[:, -2, :-2]
        cache: Any = self.module.apply(variables, tokens, inside, method="prefix")
        return Context(cache, seen)

    def embed(
        self,
        variables: Variables,
        context: Context | None,
        length: jax.Array | int,
        features: jax.Array,
        actions: jax.Array | None,
    ) -> jax.Array:
        """See Head; a view without an action is a token with an action of 0, as y tokens are."""
        if actions is None:
            actions = jnp.zeros((*features.shape[:-1], len(self.action_group_ids)))
        tokens = jnp.concatenate([features, self._scaled(actions)], axis=-1)
        h: Any
        if context is None:  # each token is a context of its own
            alone = jnp.ones((1, 1, 1, 1), bool)
            h = self.module.apply(variables, tokens[:, None], alone)
            return h[:, 0]
        seen = context.seen & (jnp.arange(context.seen.shape[-1]) < length)
        h = self.module.apply(variables, tokens, context.cache, seen, method="query")
        return h

    def tokens(self, features: jax.Array, actions: jax.Array) -> jax.Array:
        """Makes tokens (z_x, a), (z_y, 0), ...

        Args:
          features: [..., 1 or E, K, 2, F].
          actions: [..., E, K, A].

        Returns:
          [..., E, 2K, F + A].
        """
        scaled = self._scaled(actions)
        both = jnp.stack([scaled, jnp.zeros_like(scaled)], axis=-2)
        features = jnp.broadcast_to(features, (*both.shape[:-1], features.shape[-1]))
        tokens = jnp.concatenate([features, both], axis=-1)
        return tokens.reshape(*tokens.shape[:-3], -1, tokens.shape[-1])

    def _scaled(self, actions: jax.Array) -> jax.Array:
        entries = np.bincount(self.action_group_ids)[self.action_group_ids]
        return actions * np.float32(self.action_scale / np.sqrt(entries))


def build_context_head(config: ConfigDict, space: ParameterSpace, *, told: bool) -> ContextHead:
    """Builds the head from the sections `model` and `mask`.

    Args:
      config: the options.
      space: of the latents.
      told: whether tokens tell actions.

    Raises:
      UserError: the heads do not divide the width.
    """
    model, mask = config.model, config.mask
    if model.transformer.width % model.transformer.heads:
        raise UserError("model.transformer.heads: must divide model.transformer.width")

    def draw_masks(
        key: jax.Array | None, position: jax.Array, environments: int, tokens: int
    ) -> jax.Array:
        options = mask.to_dict()
        if key is None:
            key = jax.random.key(0)
            options |= dict(probability=0.0, probability_low=None)
        return training_masks(
            key,
            position,
            environments=environments,
            tokens=tokens,
            layers=model.transformer.blocks,
            **options,
        )

    lowest = mask.probability if mask.probability_low is None else mask.probability_low
    return ContextHead(
        ContextTransformer(**model.transformer, dtype=jnp.dtype(model.dtype), remat=model.remat),
        space.action_group_ids,
        model.action_scale if told else 0.0,
        draw_masks,
        uses_context=lowest < 1,
    )
