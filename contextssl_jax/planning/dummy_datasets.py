"""Data sets of the right shapes without their data, so that a plan needs none."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.data import DATASETS
from contextssl_jax.data.bench3d.dataset import StoredViews, views_dataset
from contextssl_jax.data.dataset import Dataset
from contextssl_jax.data.objects3d import world
from contextssl_jax.data.stored import stored_dataset
from contextssl_jax.errors import UserError, lookup
from contextssl_jax.transforms.scene import scene_groups

_SPLITS = ("train", "test")


def dummy_dataset(config: ConfigDict) -> Dataset:
    """Builds the config's data set, or where that needs files or time, one of its shapes.

    The groups, and so latents and rendering, are the config's; the records are black, and just
    enough for one context.

    Raises:
      UserError: an option is wrong, or does not say how large images are.
    """
    builder = DUMMY_DATASETS.get(config.data.name)
    return (builder or lookup(DATASETS, config.data.name, "data.name"))(config)


def _cifar10(config: ConfigDict) -> Dataset:
    return _images(config, 32)


def _folder(config: ConfigDict) -> Dataset:
    return _images(config, config.folder.side)


def _tfds(config: ConfigDict) -> Dataset:
    if config.tfds.side is None:
        raise UserError("--config.tfds.side: set it; a plan reads no images, so cannot know it")
    return _images(config, config.tfds.side)


def _images(config: ConfigDict, side: int) -> Dataset:
    images = np.zeros((config.data.pairs, side, side, 3), np.uint8)
    splits = dict.fromkeys(_SPLITS, (images, np.zeros(len(images), np.int32)))
    return stored_dataset(config.data.name, config, splits, mean=(0.5,) * 3, std=(0.5,) * 3)


@dataclass(frozen=True)
class _BlackViews:
    """Two black views of each object; see bench3d's Source."""

    size: int
    side: int

    @property
    def names(self) -> tuple[str, ...]:
        return ("",) * self.size

    @property
    def counts(self) -> np.ndarray:
        return np.full(self.size, 2)

    def read(self, objects: np.ndarray, views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        del views
        n = len(objects)
        return np.zeros((n, self.side, self.side, 3), np.uint8), np.zeros((n, 7), np.float32)


def _bench3d(config: ConfigDict) -> Dataset:
    groups, size = scene_groups(config), config.data.pairs
    views = StoredViews(_BlackViews(size, config.bench3d.side), np.zeros(size, np.int32), groups)
    return views_dataset(groups, dict.fromkeys(_SPLITS, views))


def _objects3d(config: ConfigDict) -> Dataset:
    """Builds objects3d with a pool of black views, if any, since a pool takes minutes to draw."""
    if config.objects3d.pool < 2:
        return world.build(config)
    drawn = config.copy_and_resolve_references()
    drawn.objects3d.pool = 0
    dataset = world.build(drawn)
    train, side = dataset.splits["train"], config.objects3d.side
    indices = np.arange(min(train.size, config.data.pairs))
    _, transform_params = train.draw(np.random.default_rng(0), indices, 2)
    images = np.zeros((len(indices), 2, side, side, 3), np.uint8)
    pool = world.Pool(images, transform_params, np.zeros(len(indices), np.int32))
    return replace(dataset, splits={**dataset.splits, "train": pool})


DUMMY_DATASETS: dict[str, Callable[[ConfigDict], Dataset]] = {
    "3diebench": _bench3d,
    "cifar10": _cifar10,
    "folder": _folder,
    "objects3d": _objects3d,
    "tfds": _tfds,
}
