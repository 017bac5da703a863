"""3DIEBench as ArrayRecord shards of decoded views, and the index that says what is in them.

A record is one view's pixels, uint8 [S, S, 3], in the order of objects: a training pair reads two
of an object's fifty views, and a record for each object would read them all. Beside each shard a
table holds what is small: names, labels, scenes, what was left out. The index is written last, so
that a folder without it is not prepared.

Records are compressed with zstd: that makes them smaller, which disks and the page cache feel, and
they are still read far faster than JPEGs are decoded.
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

import grain
import numpy as np
from etils import epath

from contextssl_jax.data.bench3d.lists import SPLITS
from contextssl_jax.errors import UserError
from contextssl_jax.storage import safe_json
from contextssl_jax.storage.files import has_size

INDEX = "3diebench.json"
PLAN = "3diebench.plan.json"  # what is being made, until the index says what was made
FORMAT = 1
WRITER_OPTIONS = "group_size:1,zstd:1"  # one record is read without its neighbours
COMMAND = "python -m contextssl_jax.data.prepare --dataset=3diebench --source=FOLDER --out=FOLDER"

Index = Mapping[str, Any]
# What cannot lead out of the folder that it is looked up in.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


class Table(NamedTuple):
    """What a shard holds, apart from pixels."""

    names: np.ndarray  # of the objects, "<synset>/<object>"
    labels: np.ndarray  # their classes, int32
    counts: np.ndarray  # their views, int32
    numbers: np.ndarray  # of each record's view in the archive, int32
    scenes: np.ndarray  # of each record, float32 [records, 7]
    left_out: np.ndarray  # a line for each view or object that is not in the shard
    size: np.ndarray  # of the shard, bytes, int64 []
    sha256: np.ndarray  # of the shard, []


@dataclass(frozen=True)
class ShardViews:
    """The views of a split's objects, read from shards; threads may share it."""

    names: tuple[str, ...]
    labels: np.ndarray  # int32 [size]
    counts: np.ndarray  # views of each object, int [size]
    starts: np.ndarray  # records before each object, int [size]
    scenes: np.ndarray  # float32 [records, 7]
    records: grain.sources.ArrayRecordDataSource
    shards: tuple[Path, ...]
    ends: np.ndarray  # records up to the end of each shard
    side: int

    def read(self, objects: np.ndarray, views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reads views [m] of objects [m]: images uint8 [m, S, S, 3], scenes float32 [m, 7].

        Raises:
          UserError: a shard is damaged.
        """
        rows = self.starts[objects] + views
        images = np.empty((len(rows), self.side, self.side, 3), np.uint8)
        for image, row in zip(images, rows, strict=True):
            try:
                image[:] = np.frombuffer(self.records[row], np.uint8).reshape(image.shape)
            except (RuntimeError, ValueError) as error:
                shard = self.shards[int(np.searchsorted(self.ends, row, "right"))]
                raise damaged(shard, error) from error
        return images, self.scenes[rows]


def shard_path(folder: Path, name: str) -> Path:
    """Returns the path of a shard's records."""
    return folder / f"{name}.array_record"


def table_path(folder: Path, name: str) -> Path:
    """Returns the path of a shard's table."""
    return folder / f"{name}.npz"


def damaged(path: Path, reason: object) -> UserError:
    """Returns the error of a file that was whole once."""
    line = " ".join(str(reason).split())
    return UserError(f"{path}: is damaged ({line}); delete it and prepare again: {COMMAND}")


def sha256(path: Path) -> str:
    """Returns a file's SHA-256 in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_table(path: Path) -> Table:
    """Reads a shard's table.

    Raises:
      UserError: it is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return Table(*(file[field] for field in Table._fields))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise damaged(path, error) from error


def read_json(path: Path) -> dict[str, Any] | None:
    """Reads an index, or None where there is no such file.

    Raises:
      UserError: it is damaged, or of another version of this project.
    """
    try:
        content = safe_json.read_json(epath.Path(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise damaged(path, f"it is not of format {FORMAT}")
    return content


def check_index(path: Path, index: Index) -> None:
    """Makes sure that an index is one, and that its shards lie beside it.

    Raises:
      UserError: it is none, or a shard's name leads elsewhere.
    """
    try:
        good = isinstance(index["side"], int) and all(
            _NAME.fullmatch(shard["name"])
            and isinstance(shard["table_sha256"], str)
            and all(isinstance(shard[key], int) for key in ("records", "bytes", "table_bytes"))
            for split in SPLITS
            for shard in index["splits"][split]
        )
        good = good and index["splits"].keys() == SPLITS.keys() and all(index["splits"].values())
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from error
    if not good:
        raise damaged(path, "it is not as it was written")


def write_json(path: Path, content: Index) -> None:
    """Writes an index; the file is whole at every moment."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(new, path)


def lacking(folder: Path, index: Index) -> list[Path]:
    """Returns the files that are missing, or of another size than they were."""
    sizes = {
        path(folder, shard["name"]): shard[size]
        for shards in index["splits"].values()
        for shard in shards
        for path, size in ((shard_path, "bytes"), (table_path, "table_bytes"))
    }
    return [path for path, size in sizes.items() if not has_size(path, size)]


def open_split(folder: Path, index: Index, split: str) -> ShardViews:
    """Opens a split of a prepared folder.

    Raises:
      UserError: a table is damaged.
    """
    shards = index["splits"][split]
    tables = []
    for shard in shards:
        path = table_path(folder, shard["name"])
        if sha256(path) != shard["table_sha256"]:
            raise damaged(path, "its SHA-256 is wrong")
        tables.append(read_table(path))
    names, labels, counts, scenes = (
        np.concatenate([getattr(table, field) for table in tables])
        for field in ("names", "labels", "counts", "scenes")
    )
    paths = tuple(shard_path(folder, shard["name"]) for shard in shards)
    # Told the number of records, the source opens a shard only when it is first read from.
    parts = [f"{path}[0:{shard['records']}]" for path, shard in zip(paths, shards, strict=True)]
    return ShardViews(
        tuple(names.tolist()),
        labels,
        counts,
        np.cumsum(counts) - counts,
        scenes,
        grain.sources.ArrayRecordDataSource(parts),
        paths,
        np.cumsum([shard["records"] for shard in shards]),
        index["side"],
    )
