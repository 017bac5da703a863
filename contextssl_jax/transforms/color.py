"""Color jitter: brightness, contrast, saturation and hue, in torchvision's arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np

from contextssl_jax.transforms.base import Group, difference

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601-2, as torchvision rounds it


def color(
    size: int,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    probability: float,
) -> Group:
    """Build color jitter; its parameters are three factors and a hue shift, identity (1, 1, 1, 0).

    Args:
      size: side of the image in pixels; not used.
      brightness: half-width of the factor's range around 1.
      contrast: half-width of the factor's range around 1.
      saturation: half-width of the factor's range around 1.
      hue: maximum shift of the hue in turns, at most 0.5.
      probability: probability that a view is jittered.
    """
    del size
    half_width = np.array([brightness, contrast, saturation, hue])
    center = np.array([1.0, 1.0, 1.0, 0.0])

    def sample(rng: np.random.Generator, n: int) -> np.ndarray:
        jitter = center + half_width * rng.uniform(-1, 1, (n, 4))
        return np.where(rng.random((n, 1)) < probability, jitter, center).astype(np.float32)

    return Group(
        name="color",
        parameter_names=("brightness", "contrast", "saturation", "hue"),
        action_names=("brightness", "contrast", "saturation", "hue"),
        sample=sample,
        relative=difference,
        identity=(1.0, 1.0, 1.0, 0.0),
        render=jitter_color,
        stage=2,
        param_units="factors of brightness, contrast and saturation, 1 for no change, and the shift"
        " of the hue in turns",
        action_units="the difference of the two views' parameters, y minus x",
    )


def jitter_color(images: jax.Array, transform_params: jax.Array) -> jax.Array:
    """Apply brightness, contrast, saturation and hue in that order, clipping after each.

    Args:
      images: [N, H, W, 3] in [0, 1].
      transform_params: factors of brightness, contrast, saturation, and the hue shift in turns,
        [N, 4].
    """
    brightness, contrast, saturation, hue = jnp.moveaxis(transform_params, 1, 0)[
        ..., None, None, None
    ]
    images = jnp.clip(images * brightness, 0, 1)
    mean = grayscale(images).mean(axis=(1, 2, 3), keepdims=True)
    images = jnp.clip(contrast * images + (1 - contrast) * mean, 0, 1)
    images = jnp.clip(saturation * images + (1 - saturation) * grayscale(images), 0, 1)
    return shift_hue(images, hue[..., 0])


def grayscale(images: jax.Array) -> jax.Array:
    """Return the luminance [..., 1] of RGB images [..., 3]."""
    # A sum rather than a matrix product, which accelerators compute at lower precision.
    return jnp.sum(images * jnp.asarray(_LUMA, images.dtype), axis=-1, keepdims=True)


def shift_hue(images: jax.Array, shift: jax.Array) -> jax.Array:
    """Shift the hue of RGB images [..., 3] in [0, 1] by shift [...], in turns."""
    red, green, blue = images[..., 0], images[..., 1], images[..., 2]
    value, low = images.max(axis=-1), images.min(axis=-1)
    chroma = value - low
    safe = jnp.where(chroma == 0, 1.0, chroma)
    sector = jnp.where(
        value == red,
        (green - blue) / safe,
        jnp.where(value == green, 2.0 + (blue - red) / safe, 4.0 + (red - green) / safe),
    )
    hue = (sector / 6.0 + shift) % 1.0

    def channel(offset: float) -> jax.Array:
        # The HSV hexagon as one clipped triangle wave per channel (offsets 5, 3, 1 for R, G, B).
        k = (offset + hue * 6.0) % 6.0
        return value - chroma * jnp.clip(jnp.minimum(k, 4.0 - k), 0.0, 1.0)

    return jnp.stack([channel(5.0), channel(3.0), channel(1.0)], axis=-1)
