"""A small patch-stem encoder that two CPU cores train in minutes.

CPUs are slowest at convolutions at full resolution. This encoder has none: it has a patch stem as
one matrix product, one strided convolution, residual blocks on the small grid, and a dense layer on
the flattened grid. LayerNorm makes it stateless and independent of the rest of the batch.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from contextssl_jax.errors import UserError
from contextssl_jax.models.convolution import Conv


class PatchEncoder(nn.Module):
    """Encode images without state.

    Attributes:
      patch: side of a patch in pixels, a divisor of half the image's side.
      widths: channels of the stem and of the strided convolution.
      blocks: pre-activation residual blocks on the small grid.
      features: F.
      dtype: of the arithmetic; features are float32.
      remat: save only the inputs of blocks for the backward pass, which recomputes the rest.
    """

    patch: int
    widths: tuple[int, int]
    blocks: int
    features: int
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Encode images [N, H, W, 3] to features [N, F]; `train` has no effect."""
        del train
        n, h, w, c = images.shape
        s = self.patch
        if h % (2 * s) or w % (2 * s):
            raise UserError(
                f"--config.model.patch.size: 2 x {s} does not divide images of {h} x {w}. Use a"
                " divisor of half the side."
            )
        x = images.reshape(n, h // s, s, w // s, s, c).swapaxes(2, 3)
        x = x.reshape(n, h // s, w // s, s * s * c)
        x = nn.Dense(self.widths[0], dtype=self.dtype)(x)
        x = self._conv(self.widths[1], 2)(self._activate(x))
        block = nn.remat(PatchEncoder._block) if self.remat else PatchEncoder._block
        for _ in range(self.blocks):
            x = block(self, x)
        x = self._activate(x).reshape(n, -1)
        x = nn.Dense(self.features, dtype=self.dtype)(x)
        return nn.LayerNorm(dtype=self.dtype)(x).astype(jnp.float32)

    def _block(self, x: jax.Array) -> jax.Array:
        residual = self._conv(x.shape[-1], 1)(self._activate(x))
        return x + self._conv(x.shape[-1], 1)(self._activate(residual))

    def _activate(self, x: jax.Array) -> jax.Array:
        return nn.relu(nn.LayerNorm(dtype=self.dtype)(x))

    def _conv(self, channels: int, stride: int) -> Conv:
        return Conv(channels, 3, stride, self.dtype)
