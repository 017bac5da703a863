"""Random smooth images of a few classes: no download, for tests and first steps."""

import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.data.dataset import Dataset, DatasetSpec
from contextssl_jax.data.stored import stored_dataset

_CLASSES = 4


def build(config: ConfigDict) -> Dataset:
    """Build the data set from `synthetic`, `groups`, `unconditioned_transforms`, their sections."""
    options = config.synthetic
    splits = {
        name: draw_images(seed, options[name], options.side)
        for seed, name in enumerate(("train", "test"))
    }
    return stored_dataset("synthetic", config, splits, mean=(0.5,) * 3, std=(0.25,) * 3)


def draw_images(seed: int, n: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Sample images of random low-frequency waves around a class color.

    Returns:
      images: uint8 [n, size, size, 3].
      labels: int32 [n] in [0, 4).
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, _CLASSES, n).astype(np.int32)
    palette = np.random.default_rng(0).uniform(0.3, 0.7, (_CLASSES, 3))
    grid = np.arange(size) / size * 2 * np.pi
    waves = rng.integers(-3, 4, (n, 3, 2, 1, 1)) * np.stack(np.meshgrid(grid, grid, indexing="ij"))
    phase = rng.uniform(0, 2 * np.pi, (n, 3, 1, 1))
    pattern = np.sin(waves.sum(axis=2) + phase).transpose(0, 2, 3, 1)
    images = palette[labels][:, None, None] + 0.25 * pattern
    return np.clip(images * 255, 0, 255).astype(np.uint8), labels


SPEC = DatasetSpec(build, dummy=build)
