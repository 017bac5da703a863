"""Gaussian blur."""

import jax
import jax.numpy as jnp
import numpy as np

from contextssl_jax.errors import UserError
from contextssl_jax.transforms.base import Group, difference
from contextssl_jax.transforms.separable import apply_separable, filter_matrix


def blur(size: int, *, sigma: tuple[float, float], taps: int, probability: float) -> Group:
    """Build torchvision's Gaussian blur; its parameter is the width sigma, 0 where not applied.

    Args:
      size: side of the image in pixels.
      sigma: range of the Gaussian's width in pixels, sampled uniformly.
      taps: pixels of the kernel along each axis, odd. Beyond sigma = taps / 4 the kernel is
        truncated, and widths become hard to distinguish.
      probability: probability that a view is blurred.

    Raises:
      UserError: `taps` is larger than reflected borders can fill.
    """
    if taps > 2 * size - 1:
        raise UserError(
            f"--config.blur.taps: {taps} is too wide for images of {size} pixels. Use an odd number"
            f" of at most {2 * size - 1}."
        )

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
        param_units="the Gaussian's standard deviation in pixels, 0 without blur",
        action_units="the difference of the two standard deviations in pixels, y minus x",
    )


def gaussian_taps(sigma: jax.Array, taps: int) -> jax.Array:
    """Return normalized Gaussian weights [N, taps] of widths sigma [N] in pixels; 0 is a delta."""
    offset = jnp.arange(taps) - taps // 2
    # At the lower bound of sigma every tap but the central one underflows to 0.
    weights = jnp.exp(-0.5 * (offset / jnp.maximum(sigma, 1e-2)[:, None]) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)
