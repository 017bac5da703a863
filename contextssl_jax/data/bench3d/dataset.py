"""3DIEBench as a data set: pairs of stored views, from shards or from the archive's own files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import jax
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.data.bench3d.lists import SPLITS, find_lists, read_lists
from contextssl_jax.data.bench3d.raw import RawViews, count_views, find_objects
from contextssl_jax.data.bench3d.shards import (
    COMMAND,
    INDEX,
    PLAN,
    check_index,
    lacking,
    open_split,
    read_json,
)
from contextssl_jax.data.dataset import Dataset, Record
from contextssl_jax.data.staging import staged
from contextssl_jax.errors import UserError
from contextssl_jax.transforms.scene import SceneGroups, scene_groups

# Of the train split's pixels at 128 pixels, in [0, 1].
MEAN = (0.5016, 0.5037, 0.5060)
STD = (0.1030, 0.0999, 0.0969)


class Source(Protocol):
    """Stored views of objects; threads may share it."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the objects."""

    @property
    def counts(self) -> np.ndarray:
        """Views of each object, int [size]."""

    def read(self, objects: np.ndarray, views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reads views [m] of objects [m]: images uint8 [m, S, S, 3], scenes float32 [m, 7]."""


@dataclass(frozen=True)
class StoredViews:
    """A split whose views are drawn from those that are stored."""

    source: Source
    labels: np.ndarray
    groups: SceneGroups

    @property
    def size(self) -> int:
        """Number of objects."""
        return len(self.labels)

    def draw(
        self, rng: np.random.Generator, indices: np.ndarray, views: int
    ) -> tuple[Record, np.ndarray]:
        """See Split.draw; the views of an object are different ones.

        Raises:
          UserError: an object has too few, or one of them cannot be read.
        """
        counts = self.source.counts[indices]
        short = np.flatnonzero(counts < views)
        if len(short):
            raise UserError(
                f"{self.source.names[indices[short[0]]]} has {counts[short[0]]} views, of which"
                f" {views} are asked for: lower eval.retrieval.views"
            )
        order = rng.random((len(indices), self.source.counts.max()))
        order[np.arange(order.shape[1]) >= counts[:, None]] = 1  # those that there are come first
        chosen = order.argsort(axis=1)[:, :views]
        images, scenes = self.source.read(np.repeat(indices, views), chosen.ravel())
        shape = len(indices), views
        return (
            images.reshape(*shape, *images.shape[1:]),
            self.groups.transform_params(scenes.reshape(*shape, scenes.shape[1])),
        )


def build(config: ConfigDict) -> Dataset:
    """Builds 3DIEBench from the sections `bench3d` and `scene`, `groups` and `nuisances`.

    What the groups do not tell varies in the pictures all the same: a nuisance changes nothing.

    Raises:
      UserError: an option is wrong, or the data are not there or not whole.
    """
    groups = scene_groups(config)
    return views_dataset(groups, open_splits(config.bench3d, groups))


def views_dataset(groups: SceneGroups, splits: Mapping[str, StoredViews]) -> Dataset:
    """Makes the data set of stored views."""

    def render(record: Record, transform_params: jax.Array) -> jax.Array:
        del transform_params
        images = record.astype(np.float32) / 255
        return (images - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32)

    def pixels(images: jax.Array) -> jax.Array:
        return (images * np.asarray(STD, np.float32) + np.asarray(MEAN, np.float32)).clip(0, 1)

    return Dataset("3diebench", groups.space(), splits, render, pixels)


def open_splits(options: ConfigDict, groups: SceneGroups) -> Mapping[str, StoredViews]:
    """Opens the splits "train" and "test" by the section `bench3d`.

    Raises:
      UserError: see build.
    """
    if options.path is None:
        raise UserError(
            "--config.bench3d.path: name the folder that 3DIEBench was prepared in, or unpacked"
            f" to; it is prepared by {COMMAND}"
        )
    folder = Path(staged(options.path, "--config.bench3d.path")).expanduser()
    if not folder.is_dir():
        raise UserError(f"--config.bench3d.path: {folder} is no folder; see {COMMAND}")
    index = read_json(folder / INDEX)
    if index is None:
        return _open_raw(folder, options, groups)
    check_index(folder / INDEX, index)
    if index["side"] != options.side:
        raise UserError(
            f"--config.bench3d.side: {options.side}, but the views in {folder} have"
            f" {index['side']} pixels"
        )
    absent = lacking(folder, index)
    if absent:
        raise UserError(f"{absent[0]}: is missing or not whole; prepare again: {COMMAND}")
    opened = {split: open_split(folder, index, split) for split in SPLITS}
    return {split: StoredViews(views, views.labels, groups) for split, views in opened.items()}


def _open_raw(folder: Path, options: ConfigDict, groups: SceneGroups) -> Mapping[str, StoredViews]:
    if (folder / PLAN).exists():
        raise UserError(f"{folder}: is not prepared to the end; go on with {COMMAND}")
    places = [folder, folder / "data"]
    if options.lists is not None:
        places = [Path(options.lists).expanduser()]
    splits = read_lists(find_lists(places))
    names = [name for objects in splits.values() for name in objects.names]
    found = find_objects(folder, names)
    if not found.all():
        raise UserError(
            f"{folder}: lacks {len(names) - found.sum()} of {len(names)} objects, such as"
            f" {names[found.argmin()]}; unpack the archive again, or prepare the data, which"
            " leaves them out"
        )
    views = count_views(folder, names)
    return {
        split: StoredViews(
            RawViews(folder, objects.names, views, options.side), objects.labels, groups
        )
        for split, objects in splits.items()
    }
