"""InfoNCE over the batch or over context positions, and the latent predictor's error.

Embeddings h of a context are in the order x1, y1, x2, y2, ...; each token's positive is its
partner. All arithmetic is float32.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from contextssl_jax.distributed.collectives import axis_offset, gather_over

_EXCLUDED = -1e9


class InfoNCEOutput(NamedTuple):
    """What InfoNCE says of each token; all float32, of this device's tokens."""

    loss: jax.Array  # -log p(positive), [B, E, 2K]
    correct: jax.Array  # 1 where the positive is the nearest candidate, [B, E, 2K]
    positive: jax.Array  # cosine of the positive, [B, E, 2K]
    negative: jax.Array  # mean cosine of the negatives, [B, E, 2K]


def normalize(x: jax.Array) -> jax.Array:
    """Scales vectors [..., P] to length 1; a zero vector stays zero, with a finite gradient."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-24))


def info_nce_batch(
    h: jax.Array, *, temperature: float, clamp: bool, axis: str | None = None
) -> InfoNCEOutput:
    """NT-Xent over all tokens of all contexts that are read in the same environment slot.

    The official code's loss: negatives of a token are the x and y tokens of every context on
    every device.

    Args:
      h: embeddings of length 1, float32 [B, E, 2K, P].
      temperature: tau.
      clamp: raise cosines to at least 1e-7, as the official code does: negatives that point away
        get no gradient.
      axis: name of the axis over which devices hold other contexts.
    """
    b, e, t, p = h.shape
    rows = h.swapaxes(0, 1).reshape(e, b * t, p)
    candidates = gather_over(rows.swapaxes(0, 1), axis).swapaxes(0, 1)
    cosine = jnp.einsum("enp,emp->enm", rows, candidates, precision=jax.lax.Precision.HIGHEST)
    own = jnp.arange(b * t) + axis_offset(b * t, axis)
    result = _cross_entropy(cosine, own ^ 1, own, temperature, clamp)
    return InfoNCEOutput(*(x.reshape(e, b, t).swapaxes(0, 1) for x in result))


def info_nce_context(h: jax.Array, *, temperature: float, clamp: bool) -> InfoNCEOutput:
    """InfoNCE over the positions of each context, in both directions (paper, Eq. 2).

    Negatives of an x token are the y tokens of its own context, and the reverse.

    Args:
      h: embeddings of length 1, float32 [B, E, 2K, P].
      temperature: tau.
      clamp: raise cosines to at least 1e-7; see info_nce_batch.
    """
    b, e, t, p = h.shape
    x, y = h[:, :, 0::2], h[:, :, 1::2]
    cosine = jnp.einsum("bekp,bejp->bekj", x, y, precision=jax.lax.Precision.HIGHEST)
    both = jnp.stack([cosine, cosine.swapaxes(2, 3)], axis=2)  # anchors x, anchors y
    result = _cross_entropy(both, jnp.arange(t // 2), None, temperature, clamp)
    return InfoNCEOutput(*(x.swapaxes(2, 3).reshape(b, e, t) for x in result))


def _cross_entropy(
    cosine: jax.Array,
    positive: jax.Array,
    own: jax.Array | None,
    temperature: float,
    clamp: bool,
) -> InfoNCEOutput:
    """Classifies the positive among candidates: cosine [..., n, m], positive and own [n]."""
    column = jnp.arange(cosine.shape[-1])
    is_positive = column == positive[:, None]
    candidate = jnp.ones_like(is_positive) if own is None else column != own[:, None]
    logits = (jnp.maximum(cosine, 1e-7) if clamp else cosine) / temperature
    logits = jnp.where(candidate, logits, _EXCLUDED)
    at_positive = jnp.sum(jnp.where(is_positive, logits, 0), axis=-1)
    negatives = jnp.where(candidate & ~is_positive, cosine, 0)
    return InfoNCEOutput(
        loss=jax.nn.logsumexp(logits, axis=-1) - at_positive,
        correct=(at_positive >= logits.max(axis=-1)).astype(jnp.float32),
        positive=jnp.sum(jnp.where(is_positive, cosine, 0), axis=-1),
        negative=negatives.sum(axis=-1) / (candidate & ~is_positive).sum(axis=-1),
    )


def parameter_errors(predicted: jax.Array, target: jax.Array, owner: np.ndarray) -> jax.Array:
    """Mean squared error of each group's latent entries.

    Args:
      predicted: standardised latents, float32 [B, E, 2K, T].
      target: the y view's standardised latents, float32 [B, K, T]; both anchors, x with its action
        and y itself, are to tell it (paper, Eq. 3).
      owner: group of each entry, int [T].

    Returns:
      [B, E, 2K, G].
    """
    squared = (predicted - jnp.repeat(target, 2, axis=1)[:, None]) ** 2
    membership = jax.nn.one_hot(owner, int(max(owner)) + 1, dtype=squared.dtype)
    weights = membership / membership.sum(axis=0)
    return jnp.einsum("bekt,tg->bekg", squared, weights, precision=jax.lax.Precision.HIGHEST)


def predictor_loss(errors: jax.Array, environments: jax.Array) -> jax.Array:
    """Sum over the shown groups of their mean squared error, a mean over contexts and tokens.

    Args:
      errors: [B, E, 2K, G], from latent_errors.
      environments: shown groups, bool [B, E, G].
    """
    return jnp.sum(errors.mean(axis=2) * environments, axis=-1).mean()
