"""Horizontal flip, usually an unconditioned transform."""

import jax
import jax.numpy as jnp
import numpy as np

from contextssl_jax.transforms.base import Group, difference


def flip(size: int, *, probability: float) -> Group:
    """Build a horizontal flip, applied before any crop so that crop parameters are unaffected.

    Args:
      size: side of the image in pixels; not used.
      probability: probability that a view is mirrored.
    """
    del size

    def sample(rng: np.random.Generator, n: int) -> np.ndarray:
        return (rng.random((n, 1)) < probability).astype(np.float32)

    def render(images: jax.Array, transform_params: jax.Array) -> jax.Array:
        mirrored = transform_params[:, 0, None, None, None] > 0.5
        return jnp.where(mirrored, images[:, :, ::-1], images)

    return Group(
        name="flip",
        parameter_names=("mirrored",),
        action_names=("mirrored",),
        sample=sample,
        relative=difference,
        identity=(0.0,),
        render=render,
        stage=0,
        param_units="1 if the view is mirrored, else 0",
        action_units="the difference, y minus x: -1, 0 or 1",
    )
