"""Batch normalization (arXiv 1502.03167) with torch's conventions, over all devices."""

from functools import partial

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
      columns: number of columns that images are packed by; see packed.py.
    """

    train: bool
    axis: str | None = None
    columns: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalize x [..., C]."""
        channels = x.shape[-1] // self.columns
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        mean, var = running_mean.value, running_var.value
        if self.train:
            wide = x.astype(jnp.float32)
            moments = _moments(wide, wide, x.dtype)
            if self.columns > 1:
                mean, square = (m.reshape(-1, channels).mean(axis=0) for m in moments)
                moments = mean, square
            mean, square = checkpoint_name(mean_over(moments, self.axis), MOMENTS)
            var = jnp.maximum(square - jnp.square(mean), 0)
            count = x.size // channels * (lax.axis_size(self.axis) if self.axis else 1)
            unbiased = var * (count / max(count - 1, 1))
            running_mean.value += _MOMENTUM * (mean - running_mean.value)
            running_var.value += _MOMENTUM * (unbiased - running_var.value)
        a = scale * lax.rsqrt(var + _EPSILON)
        b = bias - mean * a
        if self.columns > 1:
            a, b = jnp.tile(a, self.columns), jnp.tile(b, self.columns)
        return _scale_and_shift(x, a, b)


@jax.custom_vjp
def _scale_and_shift(x: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """Return x * a + b of x [..., C], a and b [C], in float32, as the type of x."""
    return (x.astype(jnp.float32) * a + b).astype(x.dtype)


def _forward(
    x: jax.Array, a: jax.Array, b: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _scale_and_shift(x, a, b), (x, a)


def _backward(
    saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, a = saved
    wide = g.astype(jnp.float32)
    by_b, by_a = _sums(wide, wide * x.astype(jnp.float32), x.dtype)
    return (wide * a).astype(x.dtype), by_a, by_b


_scale_and_shift.defvjp(_forward, _backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _moments(x: jax.Array, same: jax.Array, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """Return the means of x and x**2 over all axes but the last.

    Args:
      x: float32 [..., C].
      same: x too: a second argument keeps the order in which earlier versions add up gradients.
      dtype: of the arithmetic; see `_sums`.
    """
    sums = _sums(x, jnp.square(same), dtype)
    count = x.size // x.shape[-1]
    return sums[0] / count, sums[1] / count


def _sums(x: jax.Array, y: jax.Array, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """Return the sums of x and y, float32 [..., C], over all axes but the last.

    On GPUs, if the arithmetic is of bfloat16, this is one reduction of both: XLA completes it in
    one kernel instead of two, and can fuse it with the producer of x.
    """
    axes = tuple(range(x.ndim - 1))
    if dtype != jnp.bfloat16:
        return x.sum(axes), y.sum(axes)

    def on_cuda(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        zero = jnp.float32(0)
        both: tuple[jax.Array, jax.Array] = lax.reduce((x, y), (zero, zero), _add_pairs, axes)
        return both

    def elsewhere(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        return x.sum(axes), y.sum(axes)

    return lax.platform_dependent(x, y, cuda=on_cuda, default=elsewhere)


def _add_pairs(
    a: tuple[jax.Array, jax.Array], b: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    return a[0] + b[0], a[1] + b[1]


def _moments_forward(
    x: jax.Array, same: jax.Array, dtype: jnp.dtype
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    return _moments(x, same, dtype), x


def _moments_backward(
    dtype: jnp.dtype, x: jax.Array, g: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    count = x.size // x.shape[-1]
    return g[1] / count * (2 * x), jnp.broadcast_to(g[0] / count, x.shape)


_moments.defvjp(_moments_forward, _moments_backward)
