"""Rounded embeddings: what is squeezed into directions of small variance is erased."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from contextssl_jax.losses import normalize
from contextssl_jax.methods.base import Method


def round_to_grid(h: jax.Array, step: float) -> jax.Array:
    """Round embeddings [..., P] to multiples of `step`, and scale them to length 1.

    The error of rounding is about uniform in +-step / 2 and independent of directions with less
    variance than its own, step**2 / 12: these cannot be predicted from the result.
    """
    return normalize(step * jnp.round(h / step))


def round_embeddings(method: Method, step: float) -> Method:
    """Return the method with rounded embeddings; 0 returns it unchanged."""
    if not step:
        return method

    def embed(*args: Any) -> jax.Array:
        return round_to_grid(method.embed(*args), step)

    return replace(method, embed=embed)
