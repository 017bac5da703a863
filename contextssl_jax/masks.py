"""Attention masks over the tokens x_1, y_1, x_2, y_2, ...: True where a row attends."""

import jax
import jax.numpy as jnp

_SET = 2  # stream of randomness; random_pair_mask has 0 and 1


def pair_mask(tokens: int) -> jax.Array:
    """Return the causal mask without y_k -> x_k, bool [tokens, tokens] (paper, Fig. 3b)."""
    index = jnp.arange(tokens)
    causal = index[:, None] >= index
    own_x = (index[:, None] % 2 == 1) & (index == index[:, None] - 1)
    return causal & ~own_x


def random_pair_mask(
    key: jax.Array, tokens: int, probability: float, probability_low: float | None = None
) -> jax.Array:
    """Draw a mask that hides whole pairs, independently for each row (paper, Fig. 3c).

    A row never hides itself.

    Args:
      key: random key.
      tokens: length of the context, even.
      probability: that a row hides a pair, in [0, 1].
      probability_low: if given, each row draws its own probability uniformly from
        [probability_low, probability], so that training covers contexts of every density.

    Returns:
      bool [tokens, tokens], to be combined with `pair_mask`.
    """
    chance = jnp.float32(probability)
    if probability_low is not None:
        row_key = jax.random.fold_in(key, 0)
        chance = jax.random.uniform(
            row_key, (tokens, 1), minval=probability_low, maxval=probability
        )
    uniform = jax.random.uniform(jax.random.fold_in(key, 1), (tokens, tokens // 2))
    return keep_pairs(uniform, chance)


def keep_pairs(uniform: jax.Array, probability: jax.Array | float) -> jax.Array:
    """Return the mask of `random_pair_mask` from its random numbers.

    Args:
      uniform: a number in [0, 1) for each row and pair, [..., tokens, tokens / 2].
      probability: that a row hides a pair; broadcastable.

    Returns:
      bool [..., tokens, tokens].
    """
    tokens = uniform.shape[-2]
    return jnp.repeat(uniform >= probability, 2, axis=-1) | jnp.eye(tokens, dtype=bool)


def context_set_mask(tokens: int, pairs: jax.Array | int) -> jax.Array:
    """Return the mask in which the first pairs are a set that all later pairs attend to.

    Pairs of the set attend to themselves alone, so that their order has no effect on queries. All
    queries attend to the same set, so that it does not identify a query among the others.

    Args:
      tokens: 2 K.
      pairs: in the set, 0 to K.

    Returns:
      bool [tokens, tokens], to be combined with `pair_mask`.
    """
    pair = jnp.arange(tokens) // 2
    same = pair[:, None] == pair
    return same | ((pair[:, None] >= pairs) & (pair < pairs))


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
    context: str = "causal",
    set_pairs: int | None = None,
) -> jax.Array:
    """Draw the masks of one training step.

    Args:
      key: the step's key; each mask's key is folded from it and from global indices alone.
      position: positions of the contexts in the global batch, int [B].
      environments: E; every environment has its own masks.
      tokens: 2 K.
      layers: L, transformer blocks.
      per_layer: draw new masks in every block, as the official code does.
      per_context: draw new masks for every context; else the batch shares its masks, as in
        the official code.
      hide_own_x: apply the pair mask; False lets y tokens attend to their own x (an ablation).
      probability: see random_pair_mask.
      probability_low: see random_pair_mask.
      context: "causal", tokens attend to earlier pairs; or "set", see `context_set_mask`, whose
        number of pairs is drawn uniformly from 0 to K - 1 for every context and environment.
      set_pairs: replaces the drawn number.

    Returns:
      bool [L or 1, B or 1, E, tokens, tokens].
    """
    positions = position if per_context else jnp.zeros((1,), jnp.int32)

    def key_of(layer: jax.Array | int, position: jax.Array, environment: jax.Array) -> jax.Array:
        index = (position * layers + layer) * environments + environment
        return jax.random.fold_in(key, index)

    def draw(layer: jax.Array, position: jax.Array, environment: jax.Array) -> jax.Array:
        own = key_of(layer, position, environment)
        mask = random_pair_mask(own, tokens, probability, probability_low)
        if context == "causal":
            return mask
        # One set in all layers.
        stream = jax.random.fold_in(key_of(0, position, environment), _SET)
        drawn = jax.random.randint(stream, (), 0, tokens // 2)
        return mask & context_set_mask(tokens, drawn if set_pairs is None else set_pairs)

    over_environments = jax.vmap(draw, (None, None, 0))
    over_contexts = jax.vmap(over_environments, (None, 0, None))
    over_layers = jax.vmap(over_contexts, (0, None, None))
    drawn = over_layers(jnp.arange(layers if per_layer else 1), positions, jnp.arange(environments))
    base = pair_mask(tokens) if hide_own_x else jnp.tril(jnp.ones((tokens, tokens), bool))
    return base & drawn
