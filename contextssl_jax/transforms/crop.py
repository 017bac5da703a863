"""Random resized crop: where a box lies and how large it is."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from contextssl_jax.errors import UserError
from contextssl_jax.transforms.base import Group, difference
from contextssl_jax.transforms.separable import apply_separable, resize_matrix

_ATTEMPTS = 10  # torchvision's: then the central box of the nearest allowed shape


def crop(
    size: int,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    padding: int,
    fill: tuple[float, float, float],
) -> Group:
    """Builds torchvision's random resized crop of a square image.

    Its latent is the box in fractions of the image's side: centre y, centre x, log height, log
    width. The action is the difference of latents.

    Args:
      size: side of the image in pixels.
      scale: range of the box's area, as a fraction of the frame that boxes are drawn in.
      ratio: range of width / height, drawn log-uniformly.
      padding: pixels added on every side to make that frame. Above 0, the visible border lets a
        small encoder tell the place.
      fill: color of the padding, in [0, 1].

    Raises:
      UserError: a range is empty.
    """
    for name, (low, high) in (("scale", scale), ("ratio", ratio)):
        if not 0 < low <= high:
            raise UserError(f"crop.{name}: ({low}, {high}) is not a range above 0")
    frame = size + 2 * padding

    def sample(rng: np.random.Generator, n: int) -> np.ndarray:
        top, left, height, width = sample_boxes(rng, n, frame, scale, ratio)
        centre = (np.stack([top, left], 1) + np.stack([height, width], 1) / 2 - padding) / size
        lengths = np.log(np.stack([height, width], 1) / size)
        return np.concatenate([centre, lengths], axis=1).astype(np.float32)

    def render(images: jax.Array, transform_params: jax.Array) -> jax.Array:
        length = jnp.exp(transform_params[:, 2:]) * size
        start = transform_params[:, :2] * size - length / 2
        rows = resize_matrix(start[:, 0], length[:, 0], size)
        columns = resize_matrix(start[:, 1], length[:, 1], size)
        colour = jnp.asarray(fill, images.dtype)
        return apply_separable(images - colour, rows, columns) + colour

    return Group(
        name="crop",
        parameter_names=("centre_y", "centre_x", "log_height", "log_width"),
        action_names=("centre_y", "centre_x", "log_height", "log_width"),
        sample=sample,
        relative=difference,
        identity=(0.5, 0.5, 0.0, 0.0),
        render=render,
        stage=1,
    )


def sample_boxes(
    rng: np.random.Generator,
    n: int,
    frame: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draws boxes by torchvision's law, as whole pixels of a square frame: top, left, h, w, [n]."""
    low, high = math.log(ratio[0]), math.log(ratio[1])
    fallback = min(max(1.0, ratio[0]), ratio[1])  # the frame's own ratio is 1
    height = np.full(n, round(frame / max(1.0, fallback)), np.int64)
    width = np.full(n, round(frame * min(1.0, fallback)), np.int64)
    waiting = np.arange(n)
    for _ in range(_ATTEMPTS):
        area = rng.uniform(*scale, waiting.size) * frame**2
        aspect = np.exp(rng.uniform(low, high, waiting.size))
        h = np.rint(np.sqrt(area / aspect)).astype(np.int64)
        w = np.rint(np.sqrt(area * aspect)).astype(np.int64)
        fits = (h > 0) & (h <= frame) & (w > 0) & (w <= frame)
        height[waiting[fits]], width[waiting[fits]] = h[fits], w[fits]
        waiting = waiting[~fits]
        if not waiting.size:
            break
    top, left = rng.integers(0, frame - height + 1), rng.integers(0, frame - width + 1)
    top[waiting] = (frame - height[waiting]) // 2
    left[waiting] = (frame - width[waiting]) // 2
    return top, left, height, width
