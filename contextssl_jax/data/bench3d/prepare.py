"""Preparing 3DIEBench: the archive's JPEGs as shards, by several processes, from where it stopped.

Each shard is written under another name, renamed, and followed by its table; the index comes last.
So a run may be killed at any moment, and the next one makes the shards that are missing.
"""

import fcntl
import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from contextssl_jax.data.bench3d.lists import Objects, find_lists, read_lists
from contextssl_jax.data.bench3d.raw import count_views, find_objects
from contextssl_jax.data.bench3d.shards import (
    FORMAT,
    INDEX,
    PLAN,
    Index,
    lacking,
    read_json,
    write_json,
)
from contextssl_jax.data.bench3d.writing import Job, check_shard, is_written, write_shard
from contextssl_jax.errors import UserError

OBJECTS_PER_SHARD = 256  # about 300 MB of 128 pixels: a minute of work at most

_SHOWN = 15  # lines of what was left out

T = TypeVar("T")


def prepare(source: str, lists: str | None, out: str, side: int, processes: int) -> list[str]:
    """Writes the data set's shards and index, unless they are there.

    Args:
      source: the folder that the archive unpacks to.
      lists: the folder of the official lists; None: source, or data within it.
      out: where to write.
      side: of the views, pixels.
      processes: that decode at once.

    Returns:
      What to tell the user, as lines.

    Raises:
      UserError: the lists or the folders are wrong, or another preparation's.
    """
    folder, root = (Path(path).expanduser() for path in (out, source))
    before = read_json(folder / INDEX)
    if before is not None and before["side"] == side and not lacking(folder, before):
        return [f"{folder} was prepared before", *_told(folder, before)]
    places = [root, root / "data"] if lists is None else [Path(lists).expanduser()]
    objects = read_lists(find_lists(places))
    try:
        with _alone(folder):
            index = _write(root, objects, folder, side, processes)
    except OSError as error:
        raise UserError(f"--out: cannot write {folder} ({error})") from error
    return _told(folder, index)


def _write(
    root: Path, objects: dict[str, Objects], folder: Path, side: int, processes: int
) -> Index:
    names = [name for split in objects.values() for name in split.names]
    found = dict(zip(names, find_objects(root, names).tolist(), strict=True))
    views = count_views(root, [name for name in names if found[name]])
    plan = {
        "format": FORMAT,
        "side": side,
        "views": views,
        "objects_per_shard": OBJECTS_PER_SHARD,
        "lists": {split: _digest(listed) for split, listed in objects.items()},
    }
    _claim(folder, plan)
    jobs = {
        split: [
            Job(
                root,
                folder,
                f"{split}-{i:05d}-of-{-(-len(listed.names) // OBJECTS_PER_SHARD):05d}",
                listed.names[part],
                listed.labels[part],
                tuple(found[name] for name in listed.names[part]),
                views,
                side,
            )
            for i, part in enumerate(_parts(len(listed.names)))
        ]
        for split, listed in objects.items()
    }
    every = [job for split in jobs.values() for job in split]
    with _workers(min(processes, len(every))) as workers:
        todo = [job for job in every if not is_written(job)]
        _run(workers, write_shard, todo, "preparing")
        entries = _run(workers, check_shard, every, "checking")
    by_name = {entry["name"]: entry for entry in entries}
    shards = {split: [by_name[job.name] for job in some] for split, some in jobs.items()}
    for split, some in shards.items():
        if not any(shard["objects"] for shard in some):
            raise UserError(f"--source: not one object of the {split} split is of use in {root}")
    index = plan | {"splits": shards}
    write_json(folder / INDEX, index)
    (folder / PLAN).unlink()
    return index


def _parts(n: int) -> Iterator[slice]:
    for start in range(0, n, OBJECTS_PER_SHARD):
        yield slice(start, start + OBJECTS_PER_SHARD)


def _digest(objects: Objects) -> str:
    lines = (f"{n} {c}\n" for n, c in zip(objects.names, objects.labels, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _claim(folder: Path, plan: dict[str, Any]) -> None:
    """Makes the folder one in which this plan is at work; takes away what a killed run left.

    Raises:
      UserError: it holds, or is to hold, something else.
    """
    index = read_json(folder / INDEX)
    before = read_json(folder / PLAN) if index is None else index
    for key, value in plan.items():
        if before is not None and before.get(key) != value:
            values = f"other {key}" if key == "lists" else f"{key} {before.get(key)}, not {value}"
            raise UserError(f"--out: {folder} is prepared with {values}; name another folder")
    write_json(folder / PLAN, plan)
    (folder / INDEX).unlink(missing_ok=True)
    for new in folder.glob("*-of-*.new"):
        new.unlink()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Makes the folder, and keeps another preparation out of it for a while.

    Raises:
      UserError: there is one.
      OSError: the folder cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise UserError(f"--out: another process is preparing {folder}") from error
    except OSError:
        pass  # a file system without locks
    try:
        yield
    finally:
        os.close(handle)  # which also happens to a process that is killed


@contextmanager
def _workers(processes: int) -> Iterator[Executor | None]:
    """Yields what jobs are done by: processes that end with this one, or nothing for one."""
    if processes == 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(processes, context, _start_worker)
    try:
        yield executor
    except BrokenProcessPool as error:
        raise UserError(
            "a process has died, perhaps of too little memory; the same command goes on, with"
            " fewer --processes if need be"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _run(
    workers: Executor | None, work: Callable[[Job], T], jobs: Sequence[Job], what: str
) -> list[T]:
    """Does the jobs, under a progress bar; returns the results in any order."""
    results = []
    with tqdm(
        total=sum(len(job.names) for job in jobs), desc=what, unit="object", disable=None
    ) as bar:
        for job, result in _results(workers, work, jobs):
            results.append(result)
            bar.update(len(job.names))
    return results


def _results(
    workers: Executor | None, work: Callable[[Job], T], jobs: Sequence[Job]
) -> Iterator[tuple[Job, T]]:
    if workers is None:
        yield from ((job, work(job)) for job in jobs)
        return
    futures = {workers.submit(work, job): job for job in jobs}
    for future in as_completed(futures):
        yield futures[future], future.result()


def _start_worker() -> None:
    """Lets a worker end with the process that started it, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _told(folder: Path, index: Index) -> list[str]:
    """Returns lines that say what a prepared folder holds and lacks."""
    left_out = [
        line
        for shards in index["splits"].values()
        for shard in shards
        for line in shard["left_out"]
    ]
    counts = ", ".join(
        f"{split} {sum(shard['objects'] for shard in shards):,} objects with"
        f" {sum(shard['records'] for shard in shards):,} views"
        for split, shards in index["splits"].items()
    )
    lines = [f"{counts}, of {index['side']} pixels"]
    if left_out:
        lines.append(f"left out, because it is damaged or missing ({len(left_out):,}):")
        lines += [f"  {line}" for line in left_out[:_SHOWN]]
    if len(left_out) > _SHOWN:
        lines.append(f"  and {len(left_out) - _SHOWN:,} more: see left_out in {folder / INDEX}")
    return lines
