"""Layers for few channels on TPUs: p neighboring columns of an image are packed into channels.

A TPU's matrix units and vector registers are 128 lanes wide, of which 64 channels fill half. Packed
images [N, H, W / p, p C] fill them; channel a C + c of column j is channel c of column p j + a. A
convolution of packed images has a block kernel, of which a part is zeros: for p = 2 and a 3x3
kernel it has twice as many products, in less time.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint

LANES = 128  # of TPUs

# Kinds of devices on which packing to 128 channels is faster by the estimate of their compiler: v5e
# and v5p, by their two names each.
PACKING_DEVICES = ("TPU v5 lite", "TPU v5e", "TPU v5", "TPU v5p")


def pack_columns(x: jax.Array, columns: int) -> jax.Array:
    """Pack x [N, H, W, C] as [N, H, W / columns, columns * C]."""
    if columns == 1:
        return x
    n, h, w, c = x.shape
    return x.reshape(n, h, w // columns, columns * c)


def convolve_packed(x: jax.Array, kernel: jax.Array, stride: int, columns: int) -> jax.Array:
    """Convolve packed images with a kernel of unpacked ones, k // 2 zeros on every side.

    Args:
      x: [N, H, W / p, p C].
      kernel: [k, k, C, D], k odd.
      stride: s, a divisor of p and H.
      columns: p.

    Returns:
      [N, H / s, W / p, (p / s) D], packed too if p > s.
    """
    pad = len(kernel) // 2
    blocks, before, after = _block_kernel(kernel, stride, columns)
    y = lax.conv_general_dilated(
        _channels_in_lanes(x),
        blocks,
        (stride, 1),
        ((pad, pad), (before, after)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return _channels_in_lanes(y)


def _block_kernel(kernel: jax.Array, stride: int, columns: int) -> tuple[jax.Array, int, int]:
    """Return the kernel [k, m, p C, (p / s) D] of packed images, and the padding of columns.

    Column b of a packed output meets column a of the packed input that is d to the right through
    tap p d + a + k // 2 - s b.
    """
    k, _, c, d = kernel.shape
    pad = k // 2
    before = -(-pad // columns)  # packed columns to the left of the output's
    after = (columns - stride + k - 1 - pad) // columns
    count = before + 1 + after
    shifts = [columns * before - pad + stride * b for b in range(columns // stride)]
    shifted = [
        jnp.pad(kernel, ((0, 0), (shift, columns * count - k - shift), (0, 0), (0, 0)))
        for shift in shifts
    ]
    parts = [one.reshape(k, count, columns * c, d) for one in shifted]
    return jnp.concatenate(parts, axis=-1), before, after


def _channels_in_lanes(x: jax.Array) -> jax.Array:
    """Return x [N, H, W, C], on TPUs with N and C as the minor dimensions in memory.

    The same holds for its gradient. XLA prefers N as the minor dimension, with which convolutions
    take longer. If C does not fill the lanes, as that of images, the layout remains XLA's.
    """
    if x.shape[-1] % LANES:
        return x

    def on_tpu(x: jax.Array) -> jax.Array:
        constrained: jax.Array = with_layout_constraint(x, Layout((1, 2, 0, 3)))
        return constrained

    return lax.platform_dependent(x, tpu=on_tpu, default=lambda x: x)
