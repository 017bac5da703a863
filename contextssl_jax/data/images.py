"""Conversion of images to square RGB arrays, and channel statistics."""

import numpy as np
from PIL import Image

_CHUNK = 1000  # images per step of the count
_SMALLEST_STD = 1 / 255  # of a channel: one level, so that constant images can be normalized


def rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB; drops alpha, and the lower 8 of 16 bits.

    Floats are fractions of white if none is above 1, else levels of 0 to 255.
    """
    if image.mode.startswith("I"):  # PIL would clip these to 8 bits
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    elif image.mode == "F":
        levels = np.nan_to_num(np.asarray(image))
        levels = levels * 255 if levels.max() <= 1 else levels
        image = Image.fromarray(levels.clip(0, 255).round().astype(np.uint8))
    elif image.mode == "P":  # PIL warns about palettes with alpha when converting directly to RGB
        image = image.convert("RGBA")
    return image.convert("RGB")


def square(image: Image.Image, side: int) -> np.ndarray:
    """Resize the central square of an RGB image, antialiased, to uint8 [side, side, 3]."""
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    box = (left, top, left + edge, top + edge)
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR, box))


def channel_statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel of uint8 images [N, H, W, 3], in [0, 1].

    The standard deviation is at least 1 / 255.
    """
    counts = np.zeros((3, 256), np.int64)
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK]
        counts += [np.bincount(chunk[..., c].ravel(), minlength=256) for c in range(3)]
    frequencies, levels = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = frequencies @ levels
    variance = (frequencies * (levels - mean[:, None]) ** 2).sum(axis=1)
    return mean.tolist(), np.maximum(np.sqrt(variance), _SMALLEST_STD).tolist()
