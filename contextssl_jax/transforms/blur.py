"""Gaussian blur."""

import jax
import jax.numpy as jnp
import numpy as np

from contextssl_jax.errors import UserError
from contextssl_jax.transforms.base import Group, difference
from contextssl_jax.transforms.separable import apply_separable, filter_matrix


def blur(size: int, *, sigma: tuple[float, float], taps: int, probability: float) -> Group:
    """Builds torchvision's Gaussian blur; its latent is the width sigma, 0 where not applied.

    Args:
      size: side of the image in pixels.
      sigma: range of the Gaussian's width in pixels, drawn uniformly.
      taps: pixels of the kernel along each axis, odd. Beyond sigma = taps / 4 the kernel is cut,
        and widths grow hard to tell apart.
      probability: chance that a view is blurred.

    Raises:
      UserError: an even kernel, or one that is wider than reflected borders can fill.
    """
    if taps % 2 == 0 or taps > 2 * size - 1:
        raise UserError(f"blur.taps: {taps} is even, or too wide for images of {size} pixels")

    def sample(rng: np.random.Generator, n: int) -> np.ndarray:
        width = rng.uniform(*sigma, (n, 1))
        return np.where(rng.random((n, 1)) < probability, width, 0.0).astype(np.float32)

    def render(images: jax.Array, transform_params: jax.Array) -> jax.Array:
        kernel = filter_matrix(gaussian_taps(transform_params[:, 0], taps), size)
        return apply_separable(images, kernel, kernel)

    return Group(
        name="blur",
        parameter_names=("sigma",),
        action_names=("sigma",),
        sample=sample,
        relative=difference,
        identity=(0.0,),
        render=render,
        stage=3,
    )


def gaussian_taps(sigma: jax.Array, taps: int) -> jax.Array:
    """Normalised Gaussian weights [N, taps] of widths sigma [N] in pixels; 0 keeps the image."""
    offset = jnp.arange(taps) - taps // 2
    # The floor stands for sigma = 0: every tap but the middle one underflows to 0.
    weights = jnp.exp(-0.5 * (offset / jnp.maximum(sigma, 1e-2)[:, None]) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)
