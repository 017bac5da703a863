"""Variance and covariance of embeddings over the whole batch (VICReg, arXiv 2105.04906).

Rows are views; statistics are unbiased and over all devices' rows, so that a batch on many devices
is one batch. All arithmetic is float32.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from contextssl_jax.distributed.collectives import mean_over, sum_over

_EPSILON = 1e-4  # under the root


class VarianceCovariance(NamedTuple):
    """How embeddings fill their space; each [], 0 is best."""

    variance: jax.Array  # mean shortfall of the entries' deviations from 1
    covariance: jax.Array  # sum of squared covariances of different entries, over P


def variance_covariance(h: jax.Array, axis: str | None) -> VarianceCovariance:
    """Measures embeddings of all rows.

    Args:
      h: this device's rows, float32 [N, P]; two at least, over all devices.
      axis: name of the axis over devices that hold as many other rows, or None.
    """
    centred = h - mean_over(h.mean(axis=0), axis)
    products = jnp.einsum("np,nq->pq", centred, centred, precision=jax.lax.Precision.HIGHEST)
    count = len(h) * (1 if axis is None else jax.lax.axis_size(axis))
    covariance = sum_over(products, axis) / (count - 1)
    variances = jnp.diagonal(covariance)
    shortfall = jax.nn.relu(1 - jnp.sqrt(variances + _EPSILON))
    others = jnp.sum(jnp.square(covariance)) - jnp.sum(jnp.square(variances))
    return VarianceCovariance(shortfall.mean(), others / h.shape[-1])


def mean_variance_covariance(h: jax.Array, axis: str | None) -> VarianceCovariance:
    """Measures the contexts' embeddings in each reading by itself, and takes the mean.

    Args:
      h: float32 [B, E, K, P].
      axis: see spread.
    """
    readings = h.swapaxes(0, 1).reshape(h.shape[1], -1, h.shape[-1])
    each = [variance_covariance(rows, axis) for rows in readings]
    return VarianceCovariance(*(sum(values) / len(each) for values in zip(*each, strict=True)))
