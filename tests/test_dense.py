"""Dense layers: flax's parameters, values and gradients, on every platform's branch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import choose_platform

from contextssl_jax.models.dense import Dense


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_values_and_gradients_are_flaxs(platform, dtype, gelu, monkeypatch):
    choose_platform(monkeypatch, platform)
    initial = nn.initializers.normal(0.3)
    ours = Dense(7, jnp.dtype(dtype), initial, gelu)
    expected = nn.Dense(7, dtype=jnp.dtype(dtype), kernel_init=initial)
    x = jax.random.normal(jax.random.key(1), (2, 3, 5))
    params = ours.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, params, expected.init(jax.random.key(0), x))

    def loss(module, activate, params, x):
        y = module.apply(params, x)
        assert y.dtype == dtype
        y = nn.gelu(y, approximate=False) if activate else y
        return jnp.sin(y.astype(jnp.float32)).sum()

    found = jax.value_and_grad(lambda *args: loss(ours, False, *args), (0, 1))(params, x)
    wanted = jax.value_and_grad(lambda *args: loss(expected, gelu, *args), (0, 1))(params, x)
    bound = 1e-5 if dtype == "float32" else 2e-2  # a few units of bfloat16's 2^-8
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, bound, bound), found, wanted)
