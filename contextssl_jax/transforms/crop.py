"""Random resized crop: the position and size of a box."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from contextssl_jax.transforms.base import Group, difference
from contextssl_jax.transforms.separable import apply_separable, resize_matrix

_ATTEMPTS = 10  # as in torchvision; afterwards the central box of the nearest allowed shape


def crop(
    size: int,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    padding: int,
    fill: tuple[float, float, float],
) -> Group:
    """Build torchvision's random resized crop of a square image.

    Its parameters are the box in fractions of the image's side: center y, center x, log height, log
    width. The action is their difference.

    Args:
      size: side of the image in pixels.
      scale: range of the box's area, as a fraction of the frame that boxes are sampled in.
      ratio: range of width / height, sampled log-uniformly.
      padding: pixels added on every side to form that frame. Above 0, the visible border enables a
        small encoder to infer the position.
      fill: color of the padding, in [0, 1].
    """
    frame = size + 2 * padding

    def sample(rng: np.random.Generator, n: int) -> np.ndarray:
        top, left, height, width = sample_boxes(rng, n, frame, scale, ratio)
        center = (np.stack([top, left], 1) + np.stack([height, width], 1) / 2 - padding) / size
        lengths = np.log(np.stack([height, width], 1) / size)
        return np.concatenate([center, lengths], axis=1).astype(np.float32)

    def render(images: jax.Array, transform_params: jax.Array) -> jax.Array:
        length = jnp.exp(transform_params[:, 2:]) * size
        start = transform_params[:, :2] * size - length / 2
        rows = resize_matrix(start[:, 0], length[:, 0], size)
        columns = resize_matrix(start[:, 1], length[:, 1], size)
        color = jnp.asarray(fill, images.dtype)
        return apply_separable(images - color, rows, columns) + color

    return Group(
        name="crop",
        parameter_names=("centre_y", "centre_x", "log_height", "log_width"),
        action_names=("centre_y", "centre_x", "log_height", "log_width"),
        sample=sample,
        relative=difference,
        identity=(0.5, 0.5, 0.0, 0.0),
        render=render,
        stage=1,
        param_units="the box's center in fractions of the image's side from the top left, and the"
        " natural logarithm of its height and width as such fractions",
        action_units="the difference of the two boxes' parameters, y minus x",
    )


def sample_boxes(
    rng: np.random.Generator,
    n: int,
    frame: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sample boxes as torchvision does, in pixels of a square frame: top, left, h, w, int [n]."""
    low, high = math.log(ratio[0]), math.log(ratio[1])
    fallback = min(max(1.0, ratio[0]), ratio[1])  # the frame's ratio is 1
    height = np.full(n, round(frame / max(1.0, fallback)), np.int64)
    width = np.full(n, round(frame * min(1.0, fallback)), np.int64)
    pending = np.arange(n)
    for _ in range(_ATTEMPTS):
        area = rng.uniform(*scale, pending.size) * frame**2
        aspect = np.exp(rng.uniform(low, high, pending.size))
        h = np.rint(np.sqrt(area / aspect)).astype(np.int64)
        w = np.rint(np.sqrt(area * aspect)).astype(np.int64)
        fits = (h > 0) & (h <= frame) & (w > 0) & (w <= frame)
        height[pending[fits]], width[pending[fits]] = h[fits], w[fits]
        pending = pending[~fits]
        if not pending.size:
            break
    top, left = rng.integers(0, frame - height + 1), rng.integers(0, frame - width + 1)
    top[pending] = (frame - height[pending]) // 2
    left[pending] = (frame - width[pending]) // 2
    return top, left, height, width
