"""Convolution with gradients that are fast on CPUs too.

XLA's CPU backend is fast at plain forward convolutions and at matrix products; its gradients of
convolutions are neither, and take most of a naive ResNet's step. On CPUs this module therefore
writes them as plain convolutions and matrix products. On accelerators every convolution and its
gradients are XLA's own.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from contextssl_jax.models.packed import convolve_packed

# Shifted inputs of a chunk of the filter gradient: about what a core's cache holds.
_CHUNK_BYTES = 1 << 20
# Channels up to which copies of patches take most of a CPU convolution: RGB stems of width 16.
_FEW_INPUTS, _FEW_OUTPUTS = 4, 16


class Conv(nn.Module):
    """A square convolution without bias, padded with zeros, [N, H, W, C] -> [N, H/s, W/s, D].

    Attributes:
      channels: D.
      size: side of the kernel, odd.
      stride: s, a divisor of H and W.
      dtype: of the arithmetic.
      columns: p, a multiple of s: if p > 1, x and the result are packed images; see packed.py.
    """

    channels: int
    size: int
    stride: int
    dtype: jnp.dtype = jnp.float32
    columns: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x [N, H, W, C] to [N, H/s, W/s, D]."""
        initial = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        shape = (self.size, self.size, x.shape[-1] // self.columns, self.channels)
        x, kernel = x.astype(self.dtype), self.param("kernel", initial, shape).astype(self.dtype)
        if self.columns > 1:
            return convolve_packed(x, kernel, self.stride, self.columns)
        return convolve(x, kernel, self.stride)


def convolve(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolve x [N, H, W, C] with kernel [k, k, C, D], k odd, k // 2 zeros on every side."""
    if len(kernel) > 1 and (x.shape[1] % stride or x.shape[2] % stride):
        return _padded(x, kernel, stride)
    return _with_gradients(x, kernel, stride)


def _convolve(x: jax.Array, kernel: jax.Array, stride: int, before: int, after: int) -> jax.Array:
    padding = ((before, after), (before, after))
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=layout)


def _padded(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    return _convolve(x, kernel, stride, len(kernel) // 2, len(kernel) // 2)


def _pairs_of_columns(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve x with stride 1 as `_padded` does, two columns of the result at a time.

    They are the channels of one convolution of column stride 2, whose kernel has a column of
    zeros more: [k, k + 1, C, 2 D]. XLA then copies a third fewer patches of x for 3 x 3 kernels,
    which for few channels takes most of the time.
    """
    pad = len(kernel) // 2
    first, second = (jnp.pad(kernel, ((0, 0), extra, (0, 0), (0, 0))) for extra in ((0, 1), (1, 0)))
    both = jnp.concatenate([first, second], axis=-1)
    padding, layout = ((pad, pad), (pad, pad)), ("NHWC", "HWIO", "NHWC")
    y = lax.conv_general_dilated(x, both, (1, 2), padding, dimension_numbers=layout)
    return y.reshape(*x.shape[:3], kernel.shape[-1])


def _pointwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolve x with kernel [1, 1, C, D] as a matrix product."""
    return x[:, ::stride, ::stride] @ kernel[0, 0]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _with_gradients(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    forward = partial(_padded, stride=stride)
    if len(kernel) > 1:
        few = kernel.shape[2] <= _FEW_INPUTS and kernel.shape[3] <= _FEW_OUTPUTS
        if stride > 1 or x.shape[2] % 2 or not few:
            return forward(x, kernel)
        return lax.platform_dependent(x, kernel, cpu=_pairs_of_columns, default=forward)
    # For CPUs alone: XLA's GPU compiler aborts on a strided slice whose input is read elsewhere
    # too, as a shortcut's is (jax 0.10 and 0.11, openxla/xla#47381).
    product = partial(_pointwise, stride=stride)
    return lax.platform_dependent(x, kernel, cpu=product, default=forward)


def _forward(
    x: jax.Array, kernel: jax.Array, stride: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _with_gradients(x, kernel, stride), (x, kernel)


def _backward(
    stride: int, saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def on_cpu(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        if len(kernel) == 1:
            return jax.vjp(partial(_pointwise, stride=stride), x, kernel)[1](g)
        by_kernel = _filter_gradient(x, g, len(kernel), stride)
        return _input_gradient(g, kernel, stride), by_kernel.astype(kernel.dtype)

    def elsewhere(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vjp(partial(_padded, stride=stride), x, kernel)[1](g)

    def on_cuda(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        # cuDNN's gradient has the output channels as the major axis. Without the barrier, XLA
        # transposes parameter and moments to that layout for the update, and back after it.
        by_x, by_kernel = elsewhere(x, kernel, g)
        return by_x, lax.optimization_barrier(by_kernel.ravel()).reshape(kernel.shape)

    return lax.platform_dependent(*saved, g, cpu=on_cpu, cuda=on_cuda, default=elsewhere)


_with_gradients.defvjp(_forward, _backward)


def _input_gradient(g: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Return the input's gradient as one convolution of stride 1: [N, h, w, D] -> [N, s h, s w, C].

    Row s m + a of the input meets row m + d of the output through tap a + k // 2 - s d. So one
    convolution makes the s x s phases (a, b) of each position as channels, which are then
    interleaved (sub-pixel convolution, arXiv 1609.05158).
    """
    s, k = stride, len(kernel)
    n, h, w, d = g.shape
    c, pad = kernel.shape[2], k // 2
    low, high = -((k - 1 - pad) // s), (s - 1 + pad) // s  # range of the row offset d
    tap = np.arange(s) + pad - s * np.arange(low, high + 1)[:, None]  # [offsets, s]
    tap = np.where((tap < 0) | (tap >= k), k, tap)  # k is out of bounds: a zero
    pick = partial(jnp.take, indices=tap, mode="fill", fill_value=0)
    phases = pick(pick(kernel, axis=1), axis=0)  # [offsets, s (a), offsets, s (b), C, D]
    phases = phases.transpose(0, 2, 5, 1, 3, 4).reshape(len(tap), len(tap), d, s * s * c)
    y = _convolve(g, phases, 1, -low, high).reshape(n, h, w, s, s, c)
    return y.transpose(0, 1, 3, 2, 4, 5).reshape(n, s * h, s * w, c)


def _filter_gradient(x: jax.Array, g: jax.Array, k: int, stride: int) -> jax.Array:
    """Return the kernel's gradient as matrix products over chunks of N: float32 [k, k, C, D]."""
    product = partial(_filter_product, k=k, stride=stride)
    n = len(x)
    most = max(1, _CHUNK_BYTES // (k * x[0].size * x.dtype.itemsize))
    size = next(m for m in range(min(most, n), 0, -1) if n % m == 0)
    if size == n:
        return product(x, g)
    xs, gs = (a.reshape(n // size, size, *a.shape[1:]) for a in (x, g))

    def add(total: jax.Array, chunk: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return total + product(*chunk), None

    # From zeros over all chunks: a first product outside would copy the rest of x and g, and
    # compile twice.
    zeros = jnp.zeros((k, k, x.shape[-1], g.shape[-1]), jnp.float32)
    return lax.scan(add, zeros, (xs, gs))[0]


def _filter_product(x: jax.Array, g: jax.Array, k: int, stride: int) -> jax.Array:
    """Return one matrix product of shifted copies of x [N, H, W, C] and g [N, h, w, D]."""
    (h, w), pad, c, d = g.shape[1:3], k // 2, x.shape[-1], g.shape[-1]
    balanced = stride == 1 and d < 8 * c
    if balanced:  # column shifts of x against row shifts of g: [k C, k D]
        x = jnp.pad(x, ((0, 0), (0, 0), (pad, pad), (0, 0)))
        g = jnp.pad(g, ((0, 0), (pad, pad), (0, 0), (0, 0)))
        left = [x[:, :, j : j + w] for j in range(k)]
        right = [g[:, k - 1 - i : k - 1 - i + h] for i in range(k)]
    else:  # all k x k shifts of x, which for few C are fewer bytes than those of g: [k k C, D]
        x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        rows = [x[:, i : i + stride * h : stride] for i in range(k)]
        left = [row[:, :, j : j + stride * w : stride] for row in rows for j in range(k)]
        right = [g]
    a, b = (jnp.concatenate(parts, axis=-1) for parts in (left, right))
    a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    out = lax.dot_general(a, b, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
    if balanced:
        return out.reshape(k, c, k, d).transpose(2, 0, 1, 3)
    return out.reshape(k, k, c, d)
