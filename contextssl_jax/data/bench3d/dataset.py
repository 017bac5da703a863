"""3DIEBench as a data set: stored views, from shards or from the archive's files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.data.bench3d.lists import SPLITS, find_lists, read_lists
from contextssl_jax.data.bench3d.raw import SCENE, RawViews, count_views, find_objects
from contextssl_jax.data.bench3d.shards import (
    COMMAND,
    INDEX,
    PLAN,
    check_index,
    missing_files,
    open_split,
    read_json,
)
from contextssl_jax.data.dataset import Dataset, DatasetSpec, Record, from_bytes, make_dataset
from contextssl_jax.data.staging import stage_folder
from contextssl_jax.errors import UserError, expand_home
from contextssl_jax.transforms import ParameterSpace, build_space

# Channel statistics of the train split at 128 pixels, in [0, 1].
MEAN = (0.5016, 0.5037, 0.5060)
STD = (0.1030, 0.0999, 0.0969)


class Source(Protocol):
    """Stored views of objects; threads may share it."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the objects."""

    @property
    def counts(self) -> np.ndarray:
        """Number of views of each object, int [size]."""

    def read(self, objects: np.ndarray, views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Read views [m] of objects [m]: images uint8 [m, S, S, 3], scenes float32 [m, 7]."""


@dataclass(frozen=True)
class StoredViews:
    """A split whose views are drawn from stored renderings; image groups act on them afterwards."""

    source: Source
    labels: np.ndarray
    space: ParameterSpace

    @property
    def size(self) -> int:
        """Return the number of objects."""
        return len(self.labels)

    def draw(
        self, rng: np.random.Generator, indices: np.ndarray, views: int
    ) -> tuple[Record, np.ndarray]:
        """See Split.draw; the views of an object are distinct.

        Raises:
          UserError: an object has too few views, or one of them cannot be read.
        """
        counts = self.source.counts[indices]
        short = np.flatnonzero(counts < views)
        if len(short):
            raise UserError(
                f"--config.eval.retrieval.views: {self.source.names[indices[short[0]]]} has"
                f" {counts[short[0]]} views, but {views} are needed. Lower it."
            )
        order = rng.random((len(indices), self.source.counts.max()))
        order[np.arange(order.shape[1]) >= counts[:, None]] = 1  # existing views come first
        chosen = order.argsort(axis=1)[:, :views]
        images, scenes = self.source.read(np.repeat(indices, views), chosen.ravel())
        shape = len(indices), views
        return (
            images.reshape(*shape, *images.shape[1:]),
            self.space.from_scenes(rng, scenes.reshape(*shape, scenes.shape[1])),
        )


@dataclass(frozen=True)
class BlackViews:
    """Two black views of each object, without any files, for a plan."""

    size: int
    side: int

    @property
    def names(self) -> tuple[str, ...]:
        """See Source."""
        return ("",) * self.size

    @property
    def counts(self) -> np.ndarray:
        """See Source."""
        return np.full(self.size, 2)

    def read(self, objects: np.ndarray, views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See Source."""
        del views
        n = len(objects)
        return np.zeros((n, self.side, self.side, 3), np.uint8), np.zeros((n, SCENE), np.float32)


def build(config: ConfigDict) -> Dataset:
    """Build 3DIEBench from `bench3d`, `scene`, `groups`, `unconditioned_transforms`.

    The stored views vary in rotation, hues and light whether or not these are among the groups: an
    unconditioned transform of the scene changes nothing.

    Raises:
      UserError: an option is wrong, or the data are missing or incomplete.
    """
    space = build_space(config, config.bench3d.side, scenes=True)
    splits = open_splits(config.bench3d, space)
    return make_dataset("3diebench", space, splits, from_bytes, MEAN, STD)


def open_splits(options: ConfigDict, space: ParameterSpace) -> Mapping[str, StoredViews]:
    """Open the splits "train" and "test" by the section `bench3d`.

    Raises:
      UserError: see build.
    """
    if options.path is None:
        raise UserError(
            "--config.bench3d.path: not set. Set it to the folder of prepared or unpacked"
            f" 3DIEBench; prepare it by {COMMAND}"
        )
    folder = Path(stage_folder(options.path, "--config.bench3d.path"))
    if not folder.is_dir():
        raise UserError(f"--config.bench3d.path: {folder} is not a folder. Prepare it by {COMMAND}")
    index = read_json(folder / INDEX)
    if index is None:
        return _open_raw(folder, options, space)
    check_index(folder / INDEX, index)
    if index["side"] != options.side:
        raise UserError(
            f"--config.bench3d.side: {options.side}, but the views in {folder} have"
            f" {index['side']} pixels. Set it to {index['side']}."
        )
    missing = missing_files(folder, index)
    if missing:
        raise UserError(f"{missing[0]}: is missing or incomplete. Prepare again: {COMMAND}")
    opened = {split: open_split(folder, index, split) for split in SPLITS}
    return {split: StoredViews(views, views.labels, space) for split, views in opened.items()}


def _open_raw(
    folder: Path, options: ConfigDict, space: ParameterSpace
) -> Mapping[str, StoredViews]:
    if (folder / PLAN).exists():
        raise UserError(f"{folder}: its preparation is unfinished. Resume it by {COMMAND}")
    folders = [folder, folder / "data"]
    if options.lists is not None:
        folders = [Path(expand_home(options.lists, "--config.bench3d.lists"))]
    splits = read_lists(find_lists(folders))
    names = [name for objects in splits.values() for name in objects.names]
    found = find_objects(folder, names)
    if not found.all():
        raise UserError(
            f"{folder}: {len(names) - found.sum()} of {len(names)} objects are missing, such as"
            f" {names[found.argmin()]}. Unpack the archive again, or prepare the data, which omits"
            " them."
        )
    views = count_views(folder, names)
    return {
        split: StoredViews(
            RawViews(folder, objects.names, views, options.side), objects.labels, space
        )
        for split, objects in splits.items()
    }


def _dummy(config: ConfigDict) -> Dataset:
    size, side = config.data.pairs, config.bench3d.side
    space = build_space(config, side, scenes=True)
    views = StoredViews(BlackViews(size, side), np.zeros(size, np.int32), space)
    splits = dict.fromkeys(SPLITS, views)
    return make_dataset("3diebench", space, splits, from_bytes, MEAN, STD)


SPEC = DatasetSpec(build, _dummy)
