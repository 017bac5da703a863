"""Dense layers of a transformer, without passes over memory of their own on NVIDIA GPUs.

Parameters and values are those of flax.linen.Dense. With bfloat16 on GPUs, matrix products round a
float32 kernel as they read it; XLA would write a rounded copy first.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

_ROUNDING = lax.DotAlgorithmPreset.BF16_BF16_F32  # of float32 operands


class Dense(nn.Module):
    """A linear layer, [..., C] -> [..., D], and its activation.

    Attributes:
      features: D.
      dtype: of the arithmetic.
      kernel_init: initializer of the kernel.
      gelu: apply exact GELU, of which the backward pass recomputes everything but the product.
    """

    features: int
    dtype: jnp.dtype
    kernel_init: Callable[..., jax.Array]
    gelu: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map x [..., C] to [..., D]."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        y = _product(x.astype(self.dtype), kernel)
        return _biased_gelu(y, bias) if self.gelu else y + bias


@jax.custom_vjp
def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _contract(x, kernel, 0)


def _contract(x: jax.Array, kernel: jax.Array, axis: int) -> jax.Array:
    """Contract the last axis of x with an axis of the float32 kernel, in the precision of x."""
    dims = (((x.ndim - 1,), (axis,)), ((), ()))

    def elsewhere(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.dot_general(x, kernel.astype(x.dtype), dims)

    if x.dtype != jnp.bfloat16:
        return elsewhere(x, kernel)

    def on_cuda(x: jax.Array, kernel: jax.Array) -> jax.Array:
        wide = x.astype(jnp.float32)
        return lax.dot_general(wide, kernel, dims, precision=_ROUNDING).astype(x.dtype)

    return lax.platform_dependent(x, kernel, cuda=on_cuda, default=elsewhere)


def _product_forward(
    x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _product(x, kernel), (x, kernel)


def _product_backward(
    saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    rows = tuple(range(x.ndim - 1))
    by_kernel = lax.dot_general(x, g, ((rows, rows), ((), ())))
    return _contract(g, kernel, 1), by_kernel.astype(kernel.dtype)


_product.defvjp(_product_forward, _product_backward)


@jax.custom_vjp
def _biased_gelu(y: jax.Array, bias: jax.Array) -> jax.Array:
    return nn.gelu(y + bias, approximate=False)


def _gelu_forward(y: jax.Array, bias: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _biased_gelu(y, bias), (y, bias)


def _gelu_backward(saved: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    def plain(y: jax.Array, bias: jax.Array) -> jax.Array:
        return nn.gelu(y + bias, approximate=False)

    def recomputed(y: jax.Array, bias: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vjp(plain, *lax.optimization_barrier((y, bias)))[1](g)

    def shared(y: jax.Array, bias: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vjp(plain, y, bias)[1](g)

    if g.dtype != jnp.bfloat16:
        return shared(*saved, g)
    return lax.platform_dependent(*saved, g, cuda=recomputed, default=shared)


_biased_gelu.defvjp(_gelu_forward, _gelu_backward)
