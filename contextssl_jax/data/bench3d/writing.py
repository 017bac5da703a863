"""Writing and checking one shard, in a process of its own."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from array_record.python import array_record_module

from contextssl_jax.data.bench3d.raw import SCENE, FlawError, load_view
from contextssl_jax.data.bench3d.shards import (
    WRITER_OPTIONS,
    damaged,
    read_table,
    sha256,
    shard_path,
    table_path,
)
from contextssl_jax.errors import UserError
from contextssl_jax.storage.files import has_size

_LEAST = 2  # views of an object, without which it makes no pair


class Job(NamedTuple):
    """What a shard is to hold."""

    source: Path
    folder: Path
    name: str  # of the shard
    names: tuple[str, ...]  # of the objects
    labels: np.ndarray  # int32 [n]
    found: tuple[bool, ...]  # whether it has a folder
    views: int
    side: int


def write_shard(job: Job) -> int:
    """Writes a shard, then its table; returns the number of its objects, left out or not.

    Raises:
      UserError: the folder cannot be written, or a source file must not be read.
    """
    shard, table = shard_path(job.folder, job.name), table_path(job.folder, job.name)
    new_shard, new_table = (p.with_name(f"{p.name}.{os.getpid()}.new") for p in (shard, table))
    try:
        writer = array_record_module.ArrayRecordWriter(str(new_shard), WRITER_OPTIONS)
        content = _write_records(job, writer)
        writer.close()
        size, digest = np.int64(new_shard.stat().st_size), sha256(new_shard)
        with open(new_table, "wb") as file:
            np.savez(file, **content, size=size, sha256=np.array(digest))
        # A shard counts as written once its table is there.
        os.replace(new_shard, shard)
        os.replace(new_table, table)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--out: cannot write {shard} ({reason})") from error
    return len(job.names)


def is_written(job: Job) -> bool:
    """Says whether the shard and its table are there, by their size alone."""
    try:
        table = read_table(table_path(job.folder, job.name))
    except UserError:
        return False
    return has_size(shard_path(job.folder, job.name), int(table.size))


def check_shard(job: Job) -> dict[str, Any]:
    """Opens a written shard, compares it with its table, and returns its entry in the index.

    Raises:
      UserError: it is damaged.
    """
    path = shard_path(job.folder, job.name)
    table = read_table(table_path(job.folder, job.name))
    if sha256(path) != str(table.sha256):
        raise damaged(path, "its SHA-256 is wrong")
    reader = array_record_module.ArrayRecordReader(str(path))
    if not reader.num_records() == table.counts.sum() == len(table.scenes):
        raise damaged(path, f"{reader.num_records()} records, {len(table.scenes)} scenes")
    reader.close()
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


def _write_records(job: Job, writer: Any) -> dict[str, Any]:
    """Writes all views that can be used; returns the table's fields but `size` and `sha256`."""
    left_out, rows, numbers, scenes = [], [], [], []
    for name, label, found in zip(job.names, job.labels, job.found, strict=True):
        if not found:
            left_out.append(f"{name}: is missing")
            continue
        good = {}
        for number in range(job.views):
            try:
                good[number] = load_view(job.source, name, number, job.side)
            except FlawError as error:
                left_out.append(str(error).removeprefix(f"{job.source}/"))
        if len(good) < _LEAST:
            left_out.append(f"{name}: has fewer than {_LEAST} views of use")
            continue
        for number, (image, scene) in good.items():
            writer.write(image.tobytes())
            numbers.append(number)
            scenes.append(scene)
        rows.append((name, label, len(good)))
    return {
        "names": np.array([name for name, _, _ in rows], str),
        "labels": np.array([label for _, label, _ in rows], np.int32),
        "counts": np.array([count for _, _, count in rows], np.int32),
        "numbers": np.array(numbers, np.int32),
        "scenes": np.array(scenes, np.float32).reshape(-1, SCENE),
        "left_out": np.array(left_out, str),
    }
