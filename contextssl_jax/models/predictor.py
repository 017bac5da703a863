"""The predictor of transform parameters (paper, Eq. 3)."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from contextssl_jax.models.initializers import torch_bias, torch_kernel


class ParameterPredictor(nn.Module):
    """A ReLU network from embeddings to transform parameters.

    Attributes:
      hidden: widths of the hidden layers.
      entries: T.
      dtype: of the arithmetic; the result is float32.
    """

    hidden: Sequence[int]
    entries: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        """Predict parameters [..., T] from embeddings of length 1, [..., P]."""
        for width in self.hidden:
            h = nn.relu(self._dense(width, h.shape[-1])(h))
        return self._dense(self.entries, h.shape[-1])(h).astype(jnp.float32)

    def _dense(self, width: int, fan_in: int) -> nn.Dense:
        return nn.Dense(
            width, dtype=self.dtype, kernel_init=torch_kernel, bias_init=torch_bias(fan_in)
        )


def build_predictor(model: ConfigDict, entries: int) -> ParameterPredictor:
    """Build the predictor of T `entries` from the section `model`."""
    return ParameterPredictor(tuple(model.predictor.hidden), entries, jnp.dtype(model.dtype))
