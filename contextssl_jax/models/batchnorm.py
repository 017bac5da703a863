"""Batch normalization (arXiv 1502.03167) with torch's conventions, over all devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from contextssl_jax.distributed.collectives import mean_over

MOMENTS = "moments"  # checkpoint name of what crosses devices, which remat does not repeat

_EPSILON = 1e-5
_MOMENTUM = 0.1  # weight of the new batch in the running statistics


class BatchNorm(nn.Module):
    """Normalize each channel, with float32 statistics for any input type.

    One pass over the input gives both moments, and the result is x * a + b, which XLA fuses with
    its neighbours. The running variance is the unbiased one, as in torch.

    Attributes:
      train: normalize by the batch's statistics and update the running ones ("batch_stats");
        else normalize by the running ones.
      axis: name of the axis over whose devices the batch extends; None: one device.
    """

    train: bool
    axis: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalize x [..., C]."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        mean, var = running_mean.value, running_var.value
        if self.train:
            wide, axes = x.astype(jnp.float32), tuple(range(x.ndim - 1))
            moments = wide.mean(axes), jnp.square(wide).mean(axes)
            mean, square = checkpoint_name(mean_over(moments, self.axis), MOMENTS)
            var = jnp.maximum(square - jnp.square(mean), 0)
            count = x.size // channels * (lax.axis_size(self.axis) if self.axis else 1)
            unbiased = var * (count / max(count - 1, 1))
            running_mean.value += _MOMENTUM * (mean - running_mean.value)
            running_var.value += _MOMENTUM * (unbiased - running_var.value)
        a = scale * lax.rsqrt(var + _EPSILON)
        return (x.astype(jnp.float32) * a + (bias - mean * a)).astype(x.dtype)
