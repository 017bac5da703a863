"""The experiment of cifar10_small.py with a transformation group defined in this file: gamma.

python -m contextssl_jax.main --config=own_group
"""

import jax
import jax.numpy as jnp
import numpy as np

from contextssl_jax.configs import cifar10_small
from contextssl_jax.options import Options, number
from contextssl_jax.transforms import GROUPS, Group, difference


def gamma(size: int, *, largest: float) -> Group:
    """Build gamma correction, images ** exp(t), with t uniform in [-largest, largest]."""
    del size

    def sample(rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.uniform(-largest, largest, (n, 1)).astype(np.float32)

    def render(images: jax.Array, transform_params: jax.Array) -> jax.Array:
        # Crops may leave [0, 1] by rounding, and the power of a negative number is NaN.
        return images.clip(0, 1) ** jnp.exp(transform_params)[:, :, None, None]

    return Group(
        name="gamma",
        parameter_names=("log_gamma",),
        action_names=("log_gamma",),
        sample=sample,
        relative=difference,
        identity=(0.0,),
        render=render,
        stage=2,  # after the crop
    )


GROUPS["gamma"] = gamma


def get_config() -> Options:
    """Return the options."""
    config = cifar10_small.get_config()
    config.gamma = Options({"largest": number(0.7, above=0)})
    config.groups = config.environments = ("crop", "gamma")
    # Without color, whose brightness resembles gamma.
    config.unconditioned_transforms = ("flip",)
    return config
