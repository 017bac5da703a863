"""Data sets of images in memory, whose views the transformation groups make."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.data.dataset import Dataset, Record
from contextssl_jax.errors import UserError, lookup
from contextssl_jax.transforms import GROUPS, Group, ParameterSpace, apply_groups, sample_parameters

_STATISTICS_SEED, _STATISTICS_DRAWS = 0, 1 << 16


@dataclass(frozen=True)
class StoredImages:
    """A split of uint8 images in memory [size, H, W, 3], whose views are drawn by the groups."""

    images: np.ndarray
    labels: np.ndarray | None
    groups: tuple[Group, ...]

    @property
    def size(self) -> int:
        """Number of records."""
        return len(self.images)

    def draw(
        self, rng: np.random.Generator, indices: np.ndarray, views: int
    ) -> tuple[Record, np.ndarray]:
        """See Split.draw; all views share their record's image."""
        transform_params = sample_parameters(self.groups, rng, len(indices) * views)
        return self.images[indices][:, None], transform_params.reshape(
            len(indices), views, transform_params.shape[-1]
        )


def stored_dataset(
    name: str,
    config: ConfigDict,
    splits: Mapping[str, tuple[np.ndarray, np.ndarray | None]],
    mean: Sequence[float],
    std: Sequence[float],
) -> Dataset:
    """Builds a data set of square images from the options `groups`, `nuisances` and their sections.

    Args:
      name: of the data set.
      config: the options.
      splits: images uint8 [size, S, S, 3] and labels int32 [size] of "train" and "test".
      mean: of each channel over the train split, in [0, 1].
      std: of each channel, likewise.

    Raises:
      UserError: a group is unknown, or named twice.
    """
    side = splits["train"][0].shape[1]
    names = (*config.groups, *config.unconditioned_transforms)
    if len(set(names)) < len(names):
        raise UserError(f"groups, unconditioned_transforms: a group is named twice in {names}")
    groups = tuple(_build_group(name, side, config) for name in names)
    told, unconditioned_transforms = groups[: len(config.groups)], groups[len(config.groups) :]
    # Enough draws that the statistics are the sampler's to a fraction of a percent; a fixed seed,
    # so that they are the same in every run.
    drawn = sample_parameters(
        groups, np.random.default_rng(_STATISTICS_SEED), 2 * _STATISTICS_DRAWS
    )
    space = ParameterSpace.fit(
        told, unconditioned_transforms, drawn.reshape(_STATISTICS_DRAWS, 2, -1)
    )

    def render(record: Record, transform_params: jax.Array) -> jax.Array:
        images = apply_groups(groups, record.astype(np.float32) / 255, transform_params)
        return (images - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)

    def pixels(images: jax.Array) -> jax.Array:
        return (images * np.asarray(std, np.float32) + np.asarray(mean, np.float32)).clip(0, 1)

    return Dataset(
        name,
        space,
        {key: StoredImages(images, labels, groups) for key, (images, labels) in splits.items()},
        render,
        pixels,
    )


def _build_group(name: str, side: int, config: ConfigDict) -> Group:
    builder = lookup(GROUPS, name, "groups")
    if name not in config:
        raise UserError(f"groups: {name!r} has no section config.{name} with its options")
    return builder(side, **config[name])
