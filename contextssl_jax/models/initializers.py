"""PyTorch's default initialization of linear layers, U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""

import flax.linen as nn
import jax
from jax.typing import ArrayLike

torch_kernel = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def torch_bias(fan_in: int) -> nn.initializers.Initializer:
    """Return the initializer of the bias of a layer with fan_in inputs."""

    def initialize(
        key: ArrayLike, shape: tuple[int, ...], dtype: jax.typing.DTypeLike
    ) -> jax.Array:
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return initialize
