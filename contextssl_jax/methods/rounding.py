"""Rounded embeddings: what is squeezed into directions of small variance is erased."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from contextssl_jax.losses import normalize
from contextssl_jax.methods.base import Method

MAX_ROUNDING = 4  # of which most entries become 0


def round_to_grid(h: jax.Array, rounding: float) -> jax.Array:
    """Round embeddings of length 1 to a grid, and scale them to length 1 again.

    The error of an entry is about uniform within half a step. In every direction, it has a
    variance of step**2 / 12, below which the result contains next to nothing of the embedding.

    Args:
      h: float32 [..., P].
      rounding: step of the grid in units of 1 / sqrt(P), the root mean square of entries; above 0.
    """
    step = rounding / h.shape[-1] ** 0.5
    return normalize(step * jnp.round(h / step))


def round_embeddings(method: Method, rounding: float) -> Method:
    """Return the method with embeddings from `round_to_grid`; 0 returns it unchanged."""
    if not rounding:
        return method

    def embed(*args: Any) -> jax.Array:
        return round_to_grid(method.embed(*args), rounding)

    return replace(method, embed=embed)
