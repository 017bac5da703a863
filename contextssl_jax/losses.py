"""Losses: InfoNCE over the batch or over context positions, the predictor's error, variance and
covariance.

Embeddings h of a context are in the order x_1, y_1, x_2, y_2, ...; each token's positive is the
other token of its pair. All arithmetic is float32.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.distributed.collectives import axis_offset, gather_over, mean_over, sum_over

_EXCLUDED = -1e9
_VARIANCE_EPSILON = 1e-4  # under the root


class InfoNCEOutput(NamedTuple):
    """InfoNCE of each token of this device, float32."""

    loss: jax.Array  # -log p(positive), [B, E, 2K]
    correct: jax.Array  # 1 where the positive is the nearest candidate, [B, E, 2K]
    positive: jax.Array  # cosine of the positive, [B, E, 2K]
    negative: jax.Array  # mean cosine of the negatives, [B, E, 2K]


def normalize(x: jax.Array) -> jax.Array:
    """Scale vectors [..., P] to length 1; a zero vector stays zero, with a finite gradient."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-24))


def info_nce_batch(
    h: jax.Array, *, temperature: float, clamp: bool, axis: str | None = None
) -> InfoNCEOutput:
    """Compute NT-Xent over all tokens of all contexts, separately for each environment index.

    The official code's loss: the negatives of a token are the x and y tokens of every context on
    every device.

    Args:
      h: embeddings of length 1, float32 [B, E, 2K, P].
      temperature: tau.
      clamp: raise cosines to at least 1e-7, as the official code does: negatives with a negative
        cosine get no gradient.
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
    """Compute InfoNCE over the positions of each context, in both directions (paper, Eq. 2).

    The negatives of an x token are the y tokens of its own context, and the reverse.

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


def build_info_nce(loss: ConfigDict, axis: str | None) -> Callable[[jax.Array], InfoNCEOutput]:
    """Build InfoNCE of embeddings of length 1, [B, E, 2K, P], from the section `loss`."""
    temperature, clamp = loss.temperature, loss.clamp

    def info_nce(h: jax.Array) -> InfoNCEOutput:
        if loss.negatives == "batch":
            return info_nce_batch(h, temperature=temperature, clamp=clamp, axis=axis)
        return info_nce_context(h, temperature=temperature, clamp=clamp)

    return info_nce


def _cross_entropy(
    cosine: jax.Array,
    positive: jax.Array,
    own: jax.Array | None,
    temperature: float,
    clamp: bool,
) -> InfoNCEOutput:
    """Classify the positive among candidates: cosine [..., n, m], positive and own [n]."""
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


def parameter_errors(
    predicted: jax.Array,
    target: jax.Array,
    group_ids: np.ndarray,
    unit: np.ndarray | float = 1.0,
) -> jax.Array:
    """Return the mean squared error of each group's transform parameters.

    Args:
      predicted: parameters, float32 [B, E, 2K, T].
      target: parameters of the y views, float32 [B, K, T], which are predicted from both tokens of
        a pair (paper, Eq. 3).
      group_ids: group of each entry, int [T].
      unit: of the errors of each entry, [T] or one for all.

    Returns:
      [B, E, 2K, G].
    """
    squared = ((predicted - jnp.repeat(target, 2, axis=1)[:, None]) / unit) ** 2
    membership = jax.nn.one_hot(group_ids, int(max(group_ids)) + 1, dtype=squared.dtype)
    weights = membership / membership.sum(axis=0)
    return jnp.einsum("bekt,tg->bekg", squared, weights, precision=jax.lax.Precision.HIGHEST)


def predictor_loss(errors: jax.Array, environments: jax.Array) -> jax.Array:
    """Sum the observed groups' mean squared errors; a mean over contexts, environments and tokens.

    If each environment observes one group, this is the mean over the entries of that group, as in
    the official code, which also adds the means of several groups.

    Args:
      errors: [B, E, 2K, G], from parameter_errors.
      environments: observed groups, bool [B, E, G].
    """
    return jnp.sum(errors.mean(axis=2) * environments, axis=-1).mean()


class VarianceCovariance(NamedTuple):
    """VICReg's two regularizers (arXiv 2105.04906); each [], 0 is best."""

    variance: jax.Array  # mean shortfall of the entries' deviations from 1
    covariance: jax.Array  # sum of squared covariances of different entries, over P


def variance_covariance(h: jax.Array, axis: str | None) -> VarianceCovariance:
    """Compute VICReg's variance and covariance terms over all rows of all devices.

    Statistics are unbiased, and those of one batch whatever the number of devices.

    Args:
      h: this device's rows, float32 [N, P]; two at least, over all devices.
      axis: name of the axis over devices that hold as many other rows, or None.
    """
    centered = h - mean_over(h.mean(axis=0), axis)
    products = jnp.einsum("np,nq->pq", centered, centered, precision=jax.lax.Precision.HIGHEST)
    count = len(h) * (1 if axis is None else jax.lax.axis_size(axis))
    covariance = sum_over(products, axis) / (count - 1)
    variances = jnp.diagonal(covariance)
    shortfall = jax.nn.relu(1 - jnp.sqrt(variances + _VARIANCE_EPSILON))
    others = jnp.sum(jnp.square(covariance)) - jnp.sum(jnp.square(variances))
    return VarianceCovariance(shortfall.mean(), others / h.shape[-1])


def mean_variance_covariance(h: jax.Array, axis: str | None) -> VarianceCovariance:
    """Return the mean of `variance_covariance` over the environments.

    Args:
      h: float32 [B, E, K, P].
      axis: see variance_covariance.
    """
    by_environment = h.swapaxes(0, 1).reshape(h.shape[1], -1, h.shape[-1])
    each = [variance_covariance(rows, axis) for rows in by_environment]
    return VarianceCovariance(*(sum(values) / len(each) for values in zip(*each, strict=True)))
