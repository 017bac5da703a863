"""Preparation of 3DIEBench: JPEGs of the archive to shards, in several processes, resumable.

Each shard is written under a temporary name, renamed, and followed by its table; the index comes
last. A preparation may be killed at any moment, and the next one writes the missing shards.
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

from contextssl_jax.data.bench3d.layouts import DEFAULT
from contextssl_jax.data.bench3d.lists import Objects, find_lists, read_lists
from contextssl_jax.data.bench3d.raw import count_views, find_objects
from contextssl_jax.data.bench3d.shards import (
    FORMAT,
    INDEX,
    PLAN,
    Index,
    layout_of,
    missing_files,
    read_json,
    write_json,
)
from contextssl_jax.data.bench3d.writing import Job, check_shard, is_written, write_shard
from contextssl_jax.errors import UserError, expand_home
from contextssl_jax.progress import task

OBJECTS_PER_SHARD = 256  # about 300 MB of 128 pixels: a minute of work at most

_MAX_LISTED = 15  # skipped views or objects that are printed

T = TypeVar("T")


def prepare(
    source: str, lists: str | None, out: str, side: int, processes: int, layout: str = DEFAULT
) -> list[str]:
    """Write the shards and the index, unless they exist.

    Args:
      source: folder of the unpacked archive.
      lists: folder of the official lists; None for source, or data in it.
      out: output folder.
      side: side of the views in pixels.
      processes: number of processes that decode.
      layout: a name in LAYOUTS.

    Returns:
      A summary, as lines to print.

    Raises:
      UserError: the lists or folders are wrong, or belong to another preparation.
    """
    folder = Path(expand_home(out, "--out"))
    root = Path(expand_home(source, "--source"))
    before = read_json(folder / INDEX)
    wanted = side, layout
    if (
        before is not None
        and (before["side"], layout_of(before)) == wanted
        and not missing_files(folder, before)
    ):
        return [f"{folder} was prepared before", *_summary(folder, before)]
    folders = [root, root / "data"] if lists is None else [Path(expand_home(lists, "--lists"))]
    objects = read_lists(find_lists(folders))
    try:
        with _locked(folder):
            index = _write(root, objects, folder, side, processes, layout)
    except OSError as error:
        raise UserError(f"--out: cannot write {folder} ({error}). Use another folder.") from error
    return _summary(folder, index)


def _write(
    root: Path,
    objects: dict[str, Objects],
    folder: Path,
    side: int,
    processes: int,
    layout: str,
) -> Index:
    names = [name for split in objects.values() for name in split.names]
    found = dict(zip(names, find_objects(root, names).tolist(), strict=True))
    views = count_views(root, [name for name in names if found[name]])
    plan = {
        "format": FORMAT,
        "layout": layout,
        "side": side,
        "views": views,
        "objects_per_shard": OBJECTS_PER_SHARD,
        "lists": {split: _digest(listed) for split, listed in objects.items()},
    }
    _acquire_folder(folder, plan)
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
                layout,
            )
            for i, part in enumerate(_parts(len(listed.names)))
        ]
        for split, listed in objects.items()
    }
    every = [job for split in jobs.values() for job in split]
    with _workers(min(processes, len(every))) as workers:
        pending = [job for job in every if not is_written(job)]
        _run(workers, write_shard, pending, "preparing")
        entries = _run(workers, check_shard, every, "checking")
    by_name = {entry["name"]: entry for entry in entries}
    shards = {split: [by_name[job.name] for job in some] for split, some in jobs.items()}
    for split, some in shards.items():
        if not any(shard["objects"] for shard in some):
            raise UserError(
                f"--source: {root} has no usable object of the {split} split. Unpack the"
                " archive again."
            )
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


def _acquire_folder(folder: Path, plan: dict[str, Any]) -> None:
    """Write the plan to the folder, and delete what a killed preparation left.

    Raises:
      UserError: the folder belongs to another plan.
    """
    index = read_json(folder / INDEX)
    before = read_json(folder / PLAN) if index is None else index
    if before is not None:
        before |= {"layout": layout_of(before)}
    for key, value in plan.items():
        if before is not None and before.get(key) != value:
            values = f"other {key}" if key == "lists" else f"{key} {before.get(key)}, not {value}"
            raise UserError(f"--out: {folder} is prepared with {values}. Use another folder.")
    write_json(folder / PLAN, plan)
    (folder / INDEX).unlink(missing_ok=True)
    for new in folder.glob("*-of-*.new"):
        new.unlink()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Create the folder and hold its lock.

    Raises:
      UserError: another preparation holds the lock.
      OSError: the folder cannot be created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise UserError(
            f"--out: another process is preparing {folder}. Wait for it, or use another folder."
        ) from error
    except OSError:
        pass  # a file system without locks
    try:
        yield
    finally:
        os.close(handle)  # also happens when the process is killed


@contextmanager
def _workers(processes: int) -> Iterator[Executor | None]:
    """Provide worker processes that end with this one; None for one process."""
    if processes == 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(processes, context, _start_worker)
    try:
        yield executor
    except BrokenProcessPool as error:
        raise UserError(
            "--processes: a process has died, possibly out of memory. Run the same command again to"
            " resume, if necessary with fewer --processes."
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _run(
    workers: Executor | None, work: Callable[[Job], T], jobs: Sequence[Job], description: str
) -> list[T]:
    """Run the jobs as a task; return the results in any order."""
    results = []
    with task(description, sum(len(job.names) for job in jobs), "objects") as progress:
        for job, result in _results(workers, work, jobs):
            results.append(result)
            progress.advance(len(job.names))
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
    """Make a worker end with the process that started it, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _summary(folder: Path, index: Index) -> list[str]:
    """Return lines that summarize the content of a prepared folder and what was skipped."""
    every = [shard for shards in index["splits"].values() for shard in shards]
    skipped = [line for shard in every for line in shard["left_out"]]
    counts = ", ".join(
        f"{split} {sum(shard['objects'] for shard in shards):,} objects with"
        f" {sum(shard['records'] for shard in shards):,} views"
        for split, shards in index["splits"].items()
    )
    lines = [f"{counts}, of {index['side']} pixels"]
    if skipped:
        lines.append(f"skipped, because damaged or missing ({len(skipped):,}):")
        lines += [f"  {line}" for line in skipped[:_MAX_LISTED]]
    if len(skipped) > _MAX_LISTED:
        lines.append(f"  and {len(skipped) - _MAX_LISTED:,} more: see left_out in {folder / INDEX}")
    return lines
