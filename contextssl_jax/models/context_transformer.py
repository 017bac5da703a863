"""The masked causal transformer over the tokens of a context (paper, Fig. 2c).

Pre-LN blocks, exact GELU, linear read-in and read-out, and no positional embedding: only the causal
mask distinguishes positions.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from contextssl_jax.models.dense import Dense

_EPSILON = 1e-5


class Cache(NamedTuple):
    """Keys and values of a context's S tokens in all L blocks, shared by every query."""

    keys: jax.Array  # [L, S, heads, width / heads]
    values: jax.Array  # [L, S, heads, width / heads]


def make_tokens(features: jax.Array, actions: jax.Array) -> jax.Array:
    """Return the tokens (z_x1, a_1), (z_y1, 0), (z_x2, a_2), ... of contexts.

    Args:
      features: of K pairs of views, [..., 1 or E, K, 2, F].
      actions: [..., E, K, A].

    Returns:
      [..., E, 2K, F + A].
    """
    both = jnp.stack([actions, jnp.zeros_like(actions)], axis=-2)
    features = jnp.broadcast_to(features, (*both.shape[:-1], features.shape[-1]))
    tokens = jnp.concatenate([features, both], axis=-1)
    return tokens.reshape(*tokens.shape[:-3], -1, tokens.shape[-1])


def embed_contexts(
    transformer: "ContextTransformer", variables: Any, tokens: jax.Array, masks: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the embeddings of all x tokens and of all y tokens of B contexts in E environments.

    Args:
      transformer: the module.
      variables: of the module.
      tokens: from make_tokens, [B, E, S = 2K, F + A].
      masks: True where a row may attend, bool [L or 1, B or 1, E, S, S].

    Returns:
      float32 [B, E, K, P] each, not normalized.
    """
    b, e, s, entries = tokens.shape
    masks = jnp.broadcast_to(masks, (len(masks), b, e, s, s)).reshape(-1, b * e, s, s)
    h: Any = transformer.apply(variables, tokens.reshape(b * e, s, entries), masks)
    h = h.reshape(b, e, s // 2, 2, -1)
    return h[:, :, :, 0], h[:, :, :, 1]


def interleave(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return x_1, y_1, x_2, y_2, ... of [B, E, K, P] and [B, E or 1, K, P], as [B, E, 2K, P]."""
    b, e, k, p = x.shape
    both = jnp.stack(jnp.broadcast_arrays(x, y), axis=3)
    return both.reshape(b, e, 2 * k, p)


class Block(nn.Module):
    """One pre-LN block of width D; its attention is split so that cached queries can use it.

    Attributes:
      width: D.
      heads: attention heads, a divisor of D.
      initial: standard deviation of the initial weights.
      residual: that of the layers that add to the residual stream.
      dtype: of the arithmetic; statistics and softmax are float32.
    """

    width: int
    heads: int
    initial: float
    residual: float
    dtype: jnp.dtype

    def setup(self) -> None:
        initial = nn.initializers.normal(self.initial)
        residual = nn.initializers.normal(self.residual)
        self.norm_1 = nn.LayerNorm(_EPSILON, dtype=self.dtype)
        self.norm_2 = nn.LayerNorm(_EPSILON, dtype=self.dtype)
        self.qkv = Dense(3 * self.width, self.dtype, initial)
        self.out = Dense(self.width, self.dtype, residual)
        self.up = Dense(4 * self.width, self.dtype, initial, gelu=True)
        self.down = Dense(self.width, self.dtype, residual)

    def __call__(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return the block's output, keys and values.

        Args:
          x: [M, S, D].
          mask: True where a row may attend, bool, broadcastable to [M, S, S].
        """
        q, k, v = self.project(x)
        return self.finish(x, jax.nn.dot_product_attention(q, k, v, mask=mask[:, None])), k, v

    def project(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return queries, keys and values [..., heads, width / heads] of x [..., D]."""
        qkv = self.qkv(self.norm_1(x)).reshape(*x.shape[:-1], 3, self.heads, -1)
        return qkv[..., 0, :, :], qkv[..., 1, :, :], qkv[..., 2, :, :]

    def finish(self, x: jax.Array, attended: jax.Array) -> jax.Array:
        """Add the attention's output [..., heads, width / heads] and the MLP's to x [..., D]."""
        x = x + self.out(attended.reshape(x.shape))
        return x + self.down(self.up(self.norm_2(x)))


class ContextTransformer(nn.Module):
    """Map tokens (features and action) of contexts to embeddings.

    Attributes:
      width: D, of the residual stream.
      blocks: L.
      heads: attention heads.
      outputs: P, entries of an embedding.
      initial: standard deviation of the initial weights; that of layers that add to the
        residual stream is divided by sqrt(2 L). The official 0.02 is about 1 / sqrt(D) of its
        width 2048; in a narrower model it leaves attention too uniform to learn in a short run.
      dtype: of the arithmetic; embeddings are float32.
      remat: save only the inputs of blocks for the backward pass, which recomputes the rest.
    """

    width: int
    blocks: int
    heads: int
    outputs: int
    initial: float = 0.02
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    def setup(self) -> None:
        initial = nn.initializers.normal(self.initial)
        residual = self.initial / (2 * self.blocks) ** 0.5
        self.read_in = nn.Dense(self.width, dtype=self.dtype, kernel_init=initial)
        block = nn.remat(Block) if self.remat else Block
        self.layers = [
            block(self.width, self.heads, self.initial, residual, self.dtype)
            for _ in range(self.blocks)
        ]
        self.norm = nn.LayerNorm(_EPSILON, dtype=self.dtype)
        self.read_out = nn.Dense(self.outputs, dtype=self.dtype, kernel_init=initial)

    def __call__(self, tokens: jax.Array, masks: jax.Array) -> jax.Array:
        """Embed every token of M contexts.

        Args:
          tokens: [M, S, F + A].
          masks: True where a row may attend, bool, broadcastable to [L, M, S, S].

        Returns:
          Embeddings, float32 [M, S, P], not normalised.
        """
        return self._embed(tokens, masks)[0]

    def prefix(self, tokens: jax.Array, masks: jax.Array) -> Cache:
        """Return one context's keys and values, which serve any number of queries.

        The masks are causal, so the first c entries are the cache of the first c tokens.

        Args:
          tokens: [S, F + A].
          masks: bool [L or 1, S, S].
        """
        _, keys, values = self._embed(tokens[None], masks[:, None])
        return Cache(
            jnp.stack([k[0] for k in keys]),
            jnp.stack([v[0] for v in values]),
        )

    def query(self, tokens: jax.Array, cache: Cache, visible: jax.Array) -> jax.Array:
        """Embed N single tokens, each after one shared context.

        Args:
          tokens: [N, F + A].
          cache: of S tokens.
          visible: tokens of the context that queries may attend to in each block, bool [L or 1, S].

        Returns:
          Embeddings, float32 [N, P], not normalised.
        """
        x = self.read_in(tokens)
        visible = jnp.broadcast_to(visible, cache.keys.shape[:2])
        for layer, keys, values, attends in zip(self.layers, *cache, visible, strict=True):
            q, k, v = layer.project(x)
            scale = q.shape[-1] ** -0.5
            context = jnp.einsum("nhd,shd->nhs", q, keys, preferred_element_type=jnp.float32)
            own = jnp.einsum("nhd,nhd->nh", q, k, preferred_element_type=jnp.float32)
            logits = jnp.concatenate(
                [jnp.where(attends, context, -jnp.inf), own[..., None]], axis=-1
            )
            weights = nn.softmax(logits * scale, axis=-1).astype(v.dtype)
            attended = jnp.einsum("nhs,shd->nhd", weights[..., :-1], values)
            x = layer.finish(x, attended + weights[..., -1:] * v)
        return self.read_out(self.norm(x)).astype(jnp.float32)

    def _embed(
        self, tokens: jax.Array, masks: jax.Array
    ) -> tuple[jax.Array, list[jax.Array], list[jax.Array]]:
        x = self.read_in(tokens)
        keys, values = [], []
        for i, layer in enumerate(self.layers):
            x, k, v = layer(x, masks[min(i, len(masks) - 1)])
            keys.append(k)
            values.append(v)
        return self.read_out(self.norm(x)).astype(jnp.float32), keys, values
