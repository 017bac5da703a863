"""Attention masks over a context's tokens (x1, y1, x2, y2, ...): True where a row may look."""

import jax
import jax.numpy as jnp


def pair_mask(tokens: int) -> jax.Array:
    """Causal mask in which y_k does not see its own x_k, bool [tokens, tokens] (paper, Fig. 3b)."""
    index = jnp.arange(tokens)
    causal = index[:, None] >= index
    own_x = (index[:, None] % 2 == 1) & (index == index[:, None] - 1)
    return causal & ~own_x


def random_pair_mask(
    key: jax.Array, tokens: int, probability: float, probability_low: float | None = None
) -> jax.Array:
    """Hides whole pairs at random, each row on its own, never the row itself (paper, Fig. 3c).

    Args:
      key: decides what is hidden.
      tokens: length of the context, even.
      probability: chance that a row does not see a pair.
      probability_low: where given, each row draws its own chance from [probability_low,
        probability], so that long contexts are within what was trained on.

    Returns:
      bool [tokens, tokens], to be combined with `pair_mask`.
    """
    chance = jnp.float32(probability)
    if probability_low is not None:
        row_key = jax.random.fold_in(key, 0)
        chance = jax.random.uniform(
            row_key, (tokens, 1), minval=probability_low, maxval=probability
        )
    keep = jax.random.uniform(jax.random.fold_in(key, 1), (tokens, tokens // 2)) >= chance
    return jnp.repeat(keep, 2, axis=1) | jnp.eye(tokens, dtype=bool)


def training_masks(
    key: jax.Array,
    position: jax.Array,
    *,
    environments: int,
    tokens: int,
    layers: int,
    per_layer: bool,
    per_context: bool,
    hide_own_x: bool,
    probability: float,
    probability_low: float | None,
) -> jax.Array:
    """Draws the masks of one training step.

    Args:
      key: the step's key; each mask's own is folded from it and from global indices alone.
      position: places of the contexts in the global batch, int [B].
      environments: E, how often each context is read; each reading has its own masks.
      tokens: 2 K.
      layers: L, transformer blocks.
      per_layer: draw anew in every block, as the official code does.
      per_context: draw anew for every context; else the batch shares its masks, as in the
        official code.
      hide_own_x: apply the pair mask; without it, y tokens see their own x (an ablation).
      probability: see random_pair_mask.
      probability_low: see random_pair_mask.

    Returns:
      bool [L or 1, B or 1, E, tokens, tokens].
    """
    owners = position if per_context else jnp.zeros((1,), jnp.int32)

    def draw(layer: jax.Array, owner: jax.Array, environment: jax.Array) -> jax.Array:
        index = (owner * layers + layer) * environments + environment
        return random_pair_mask(
            jax.random.fold_in(key, index), tokens, probability, probability_low
        )

    over_environments = jax.vmap(draw, (None, None, 0))
    over_owners = jax.vmap(over_environments, (None, 0, None))
    over_layers = jax.vmap(over_owners, (0, None, None))
    drawn = over_layers(jnp.arange(layers if per_layer else 1), owners, jnp.arange(environments))
    base = pair_mask(tokens) if hide_own_x else jnp.tril(jnp.ones((tokens, tokens), bool))
    return base & drawn
