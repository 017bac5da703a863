"""Writing and validation of one shard, in a worker process."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contextssl_jax.data.bench3d.layouts import LAYOUTS, Writer
from contextssl_jax.data.bench3d.raw import SCENE, FlawError, load_view
from contextssl_jax.data.bench3d.shards import (
    damage_error,
    read_table,
    sha256,
    shard_path,
    table_path,
)
from contextssl_jax.errors import UserError
from contextssl_jax.storage.files import has_size

_MIN_VIEWS = 2  # views of an object, one pair


class Job(NamedTuple):
    """The input of one shard."""

    source: Path
    folder: Path
    name: str  # name of the shard
    names: tuple[str, ...]  # names of the objects
    labels: np.ndarray  # int32 [n]
    found: tuple[bool, ...]  # whether each object has a folder
    views: int
    side: int
    layout: str


def write_shard(job: Job) -> int:
    """Write a shard, then its table; returns the number of its objects, skipped ones included.

    Raises:
      UserError: the folder cannot be written, or a source file cannot be read.
    """
    shard, table = _shard_path(job), table_path(job.folder, job.name)
    new_shard, new_table = (p.with_name(f"{p.name}.{os.getpid()}.new") for p in (shard, table))
    try:
        writer = LAYOUTS[job.layout].create(new_shard, job.side)
        content = _write_records(job, writer)
        writer.close()
        size, digest = np.int64(new_shard.stat().st_size), sha256(new_shard)
        with open(new_table, "wb") as file:
            np.savez(file, **content, size=size, sha256=np.array(digest))
        # A shard counts as written once its table exists.
        os.replace(new_shard, shard)
        os.replace(new_table, table)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"--out: cannot write {shard} ({reason}). Use another folder, or free space."
        ) from error
    return len(job.names)


def is_written(job: Job) -> bool:
    """Return whether the shard and its table exist, by their size alone."""
    try:
        table = read_table(table_path(job.folder, job.name))
    except UserError:
        return False
    return has_size(_shard_path(job), int(table.size))


def check_shard(job: Job) -> dict[str, Any]:
    """Compare a written shard with its table, and return its entry in the index.

    Raises:
      UserError: it is damaged.
    """
    path = _shard_path(job)
    table = read_table(table_path(job.folder, job.name))
    if sha256(path) != str(table.sha256):
        raise damage_error(path, "its SHA-256 is wrong")
    records = LAYOUTS[job.layout].count(path)
    if not records == table.counts.sum() == len(table.scenes):
        raise damage_error(path, f"{records} records, {len(table.scenes)} scenes")
    return {
        "name": job.name,
        "objects": len(table.names),
        "records": len(table.scenes),
        "bytes": int(table.size),
        "sha256": str(table.sha256),
        "table_bytes": table_path(job.folder, job.name).stat().st_size,
        "table_sha256": sha256(table_path(job.folder, job.name)),
        "left_out": table.left_out.tolist(),
    }


def _shard_path(job: Job) -> Path:
    return shard_path(job.folder, job.name, job.layout)


def _write_records(job: Job, writer: Writer) -> dict[str, Any]:
    """Write all usable views; returns the fields of the table except `size` and `sha256`."""
    skipped, rows, numbers, scenes = [], [], [], []
    for name, label, found in zip(job.names, job.labels, job.found, strict=True):
        if not found:
            skipped.append(f"{name}: is missing")
            continue
        usable = {}
        for number in range(job.views):
            try:
                usable[number] = load_view(job.source, name, number, job.side)
            except FlawError as error:
                skipped.append(str(error).removeprefix(f"{job.source}/"))
        if len(usable) < _MIN_VIEWS:
            skipped.append(f"{name}: has fewer than {_MIN_VIEWS} usable views")
            continue
        for number, (image, scene) in usable.items():
            writer.write(image.tobytes())
            numbers.append(number)
            scenes.append(scene)
        rows.append((name, label, len(usable)))
    return {
        "names": np.array([name for name, _, _ in rows], str),
        "labels": np.array([label for _, label, _ in rows], np.int32),
        "counts": np.array([count for _, _, count in rows], np.int32),
        "numbers": np.array(numbers, np.int32),
        "scenes": np.array(scenes, np.float32).reshape(-1, SCENE),
        "left_out": np.array(skipped, str),
    }
