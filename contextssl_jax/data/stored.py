"""Data sets of images in memory, whose views are rendered by image groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.data.dataset import Dataset, Record, from_bytes, make_dataset
from contextssl_jax.transforms import ParameterSpace, build_space, sample_parameters


@dataclass(frozen=True)
class StoredImages:
    """A split of uint8 images in memory [size, H, W, 3]; the parameters of views are sampled."""

    images: np.ndarray
    labels: np.ndarray | None
    space: ParameterSpace

    @property
    def size(self) -> int:
        """Return the number of records."""
        return len(self.images)

    def draw(
        self, rng: np.random.Generator, indices: np.ndarray, views: int
    ) -> tuple[Record, np.ndarray]:
        """See Split.draw; all views share their record's image."""
        return self.images[indices][:, None], self.draw_params(rng, len(indices), views)

    def draw_params(self, rng: np.random.Generator, n: int, views: int) -> np.ndarray:
        """Sample the transform parameters of n records' views, float32 [n, views, D]."""
        transform_params = sample_parameters(self.space.all_groups, rng, n * views)
        return transform_params.reshape(n, views, transform_params.shape[-1])


def stored_dataset(
    name: str,
    config: ConfigDict,
    splits: Mapping[str, tuple[np.ndarray, np.ndarray | None]],
    mean: Sequence[float],
    std: Sequence[float],
) -> Dataset:
    """Build a data set of square images from `groups`, `unconditioned_transforms`, their sections.

    Args:
      name: name of the data set.
      config: the options.
      splits: images uint8 [size, S, S, 3] and labels int32 [size] of "train" and "test".
      mean: mean of each channel over the train split, in [0, 1].
      std: standard deviation of each channel, likewise.

    Raises:
      UserError: a group is unknown or is named twice.
    """
    space = build_space(config, splits["train"][0].shape[1])
    stored = {key: StoredImages(*split, space) for key, split in splits.items()}
    return make_dataset(name, space, stored, from_bytes, mean, std)


def dummy_stored_dataset(config: ConfigDict, side: int) -> Dataset:
    """Build a data set of black images, enough for one context; see DatasetSpec.dummy."""
    images = np.zeros((config.data.pairs, side, side, 3), np.uint8)
    splits = dict.fromkeys(("train", "test"), (images, np.zeros(len(images), np.int32)))
    return stored_dataset(config.data.name, config, splits, mean=(0.5,) * 3, std=(0.5,) * 3)
