"""3DIEBench as shards of decoded views, with an index of their content.

A record is one view's pixels, uint8 [S, S, 3], in the order of objects: a training pair needs two
of an object's fifty views, and one record per object would load all of them. A table beside each
shard has the small data: names, labels, scenes, skipped views. The index is written last, so a
folder without it is not fully prepared.

Records are compressed with zstd, which reduces the load on disks and the page cache, in the layout
"array_record"; those of "npy" are larger, and are read without decompression.
"""

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from contextssl_jax.data.bench3d.layouts import DEFAULT, LAYOUTS, Records
from contextssl_jax.data.bench3d.lists import SPLITS
from contextssl_jax.errors import UserError
from contextssl_jax.storage import safe_json
from contextssl_jax.storage.files import has_size

INDEX = "3diebench.json"
PLAN = "3diebench.plan.json"  # exists while the preparation is unfinished
FORMAT = 1
COMMAND = "python -m contextssl_jax.data.prepare --dataset=3diebench --source=FOLDER --out=FOLDER"

Index = Mapping[str, Any]
# A path component that cannot lead out of its parent folder.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


class Table(NamedTuple):
    """The content of a shard apart from pixels."""

    names: np.ndarray  # names of the objects, "<synset>/<object>"
    labels: np.ndarray  # their classes, int32
    counts: np.ndarray  # their views, int32
    numbers: np.ndarray  # number of each record's view in the archive, int32
    scenes: np.ndarray  # scene of each record, float32 [records, 7]
    left_out: np.ndarray  # a line for each skipped view or object
    size: np.ndarray  # bytes of the shard, int64 []
    sha256: np.ndarray  # SHA-256 of the shard, []


@dataclass(frozen=True)
class ShardViews:
    """The views of a split's objects, read from shards; threads may share it."""

    names: tuple[str, ...]
    labels: np.ndarray  # int32 [size]
    counts: np.ndarray  # number of views of each object, int [size]
    starts: np.ndarray  # number of records before each object, int [size]
    scenes: np.ndarray  # float32 [records, 7]
    records: Records
    shards: tuple[Path, ...]
    ends: np.ndarray  # number of records up to the end of each shard
    side: int

    def read(self, objects: np.ndarray, views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Read views [m] of objects [m]: images uint8 [m, S, S, 3], scenes float32 [m, 7].

        Raises:
          UserError: a shard is damaged.
        """
        rows = self.starts[objects] + views
        images = np.empty((len(rows), self.side, self.side, 3), np.uint8)
        for image, row in zip(images, rows.tolist(), strict=True):
            try:
                self.records.read(row, image)
            except (OSError, RuntimeError, ValueError) as error:
                shard = self.shards[int(np.searchsorted(self.ends, row, "right"))]
                raise damage_error(shard, error) from error
        return images, self.scenes[rows]


def layout_of(index: Index) -> str:
    """Return the name of an index's layout."""
    layout: str = index.get("layout", DEFAULT)  # absent from those of earlier versions
    return layout


def shard_path(folder: Path, name: str, layout: str) -> Path:
    """Return the path of a shard's records."""
    return folder / f"{name}.{LAYOUTS[layout].suffix}"


def table_path(folder: Path, name: str) -> Path:
    """Return the path of a shard's table."""
    return folder / f"{name}.npz"


def damage_error(path: Path, reason: object) -> UserError:
    """Return the error of a damaged file."""
    line = " ".join(str(reason).split())
    return UserError(f"{path}: is damaged ({line}). Delete it and prepare again: {COMMAND}")


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_table(path: Path) -> Table:
    """Read a shard's table.

    Raises:
      UserError: it is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return Table(*(file[field] for field in Table._fields))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise damage_error(path, error) from error


def read_json(path: Path) -> dict[str, Any] | None:
    """Read an index; None if there is no such file.

    Raises:
      UserError: it is damaged, or of another version of this project.
    """
    try:
        content = safe_json.read_json(epath.Path(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise damage_error(path, error) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise damage_error(path, f"it is not of format {FORMAT}")
    return content


def check_index(path: Path, index: Index) -> None:
    """Validate the structure of an index, and that its shards are in the same folder.

    Raises:
      UserError: it is malformed, or a shard's name leads out of the folder.
    """
    try:
        valid = isinstance(index["side"], int) and layout_of(index) in LAYOUTS
        valid = valid and all(
            _NAME.fullmatch(shard["name"])
            and isinstance(shard["table_sha256"], str)
            and all(isinstance(shard[key], int) for key in ("records", "bytes", "table_bytes"))
            for split in SPLITS
            for shard in index["splits"][split]
        )
        valid = valid and index["splits"].keys() == SPLITS.keys() and all(index["splits"].values())
    except (KeyError, TypeError, AttributeError) as error:
        raise damage_error(path, f"{type(error).__name__}: {error}") from error
    if not valid:
        raise damage_error(path, "its structure is wrong")


def write_json(path: Path, content: Index) -> None:
    """Write an index atomically."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(new, path)


def missing_files(folder: Path, index: Index) -> list[Path]:
    """Return the files that are missing or have another size than in the index."""
    sizes = {}
    for shards in index["splits"].values():
        for shard in shards:
            sizes[shard_path(folder, shard["name"], layout_of(index))] = shard["bytes"]
            sizes[table_path(folder, shard["name"])] = shard["table_bytes"]
    return [path for path, size in sizes.items() if not has_size(path, size)]


def open_split(folder: Path, index: Index, split: str) -> ShardViews:
    """Open a split of a prepared folder.

    Raises:
      UserError: a table is damaged, or a shard cannot be opened.
    """
    shards = index["splits"][split]
    tables = []
    for shard in shards:
        path = table_path(folder, shard["name"])
        if sha256(path) != shard["table_sha256"]:
            raise damage_error(path, "its SHA-256 is wrong")
        tables.append(read_table(path))
    names, labels, counts, scenes = (
        np.concatenate([getattr(table, field) for table in tables])
        for field in ("names", "labels", "counts", "scenes")
    )
    layout = layout_of(index)
    paths = tuple(shard_path(folder, shard["name"], layout) for shard in shards)
    counts_of_shards = [shard["records"] for shard in shards]
    try:
        records = LAYOUTS[layout].open(paths, counts_of_shards, index["side"])
    except OSError as error:
        raise damage_error(Path(error.filename), error.strerror) from error
    return ShardViews(
        tuple(names.tolist()),
        labels,
        counts,
        np.cumsum(counts) - counts,
        scenes,
        records,
        paths,
        np.cumsum(counts_of_shards),
        index["side"],
    )
