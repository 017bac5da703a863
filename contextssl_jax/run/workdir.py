"""A run's folder: it belongs to one config, whose options decide the result, and to its data."""

import hashlib
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from contextssl_jax.config import flatten, to_json
from contextssl_jax.data.dataset import Dataset
from contextssl_jax.errors import UserError
from contextssl_jax.run.lock import Lock
from contextssl_jax.storage.files import write_atomic
from contextssl_jax.storage.paths import error_reason, io_errors, resolve_path
from contextssl_jax.storage.safe_json import read_json, truncate

# Options that change where and how fast a run goes, not what comes out: they may differ on resume.
# Those of the data sets (data.resume_free_options) are passed to the functions below.
_FREE = (
    *("data.threads", "data.prefetch", "train.parallel", "model.remat"),
    *("log.", "checkpoint.", "eval."),
)

_NAMED = 20  # options that a message names
_NAME, _DATA = "config.json", "data.json"


def fingerprint(config: ConfigDict, resume_free: tuple[str, ...]) -> str:
    """Returns 12 hexadecimal digits that differ where options that decide the result differ."""
    free = _FREE + resume_free
    decisive = [[k, v] for k, v in sorted(flatten(config)) if not k.startswith(free)]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:12]


def check_workdir(folder: str, config: ConfigDict, resume_free: tuple[str, ...]) -> None:
    """Makes sure that the folder is this config's or is free.

    Raises:
      UserError: it belongs to another config, or to something else, or cannot be read.
    """
    workdir = resolve_path(folder, "--workdir")
    try:
        if (workdir / _NAME).exists():
            _compare(workdir / _NAME, config, _FREE + resume_free)
        elif workdir.exists() and any(map(_strange, workdir.iterdir())):
            raise UserError(f"{workdir}: is not empty and has no {_NAME}; choose another --workdir")
    except io_errors() as error:
        raise UserError(f"--workdir: cannot use {folder} ({error_reason(error)})") from error


@contextmanager
def acquire_workdir(
    workdir: epath.Path, config: ConfigDict, dataset: Dataset, resume_free: tuple[str, ...]
) -> Iterator[Lock]:
    """Holds a folder that `check` has passed, and makes it this config's and this data set's.

    Raises:
      UserError: another run holds it or was quicker, its data were others, or it cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except io_errors() as error:
        raise UserError(f"--workdir: cannot use {workdir} ({error_reason(error)})") from error
    with Lock(workdir) as lock:
        check_workdir(str(workdir), config, resume_free)
        try:
            _write_once(workdir / _NAME, to_json(config))
            identity = _identity(dataset)
            _write_once(workdir / _DATA, json.dumps(identity) + "\n")
            saved = read_json(workdir / _DATA)
        except io_errors() as error:
            what = f"cannot use {workdir} ({error_reason(error)})"
            raise UserError(f"--workdir: {what}") from error
        except ValueError as error:
            raise UserError(f"{workdir / _DATA}: is damaged; choose another --workdir") from error
        if saved != identity:
            raise UserError(
                f"{workdir}: its data set is no longer the one that the run began with"
                f" ({_tell(saved)} then, {_tell(identity)} now), so that it would go on as another"
                " run; put the data back, or choose another --workdir"
            )
        yield lock


def _strange(path: epath.Path) -> bool:
    """Says whether a file in a folder without config.json is none of a start that was cut short."""
    return not path.name.startswith(("config.json.", "lock.json"))


def _write_once(file: epath.Path, text: str) -> None:
    if not file.exists():
        write_atomic(file, text)


def _identity(dataset: Dataset) -> dict[str, Any]:
    """What tells a data set from another, cheaply: sizes and labels."""
    return {
        name: {
            "records": split.size,
            "labels": None if split.labels is None else zlib.crc32(split.labels.tobytes()),
        }
        for name, split in dataset.splits.items()
    }


def _tell(identity: Any) -> str:
    try:
        parts = (
            f"{name} {part['records']:,} records, labels {part['labels']}"
            for name, part in identity.items()
        )
        return truncate("; ".join(parts))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return "something unreadable"


def _compare(file: epath.Path, config: ConfigDict, free: tuple[str, ...]) -> None:
    try:
        saved = read_json(file)
        old = dict(flatten(saved))
    except (ValueError, AttributeError, RecursionError) as error:
        what = truncate(error)
        raise UserError(f"{file}: is damaged ({what}); choose another --workdir") from error
    new = dict(flatten(json.loads(to_json(config))))
    differing = [
        f"{truncate(name)} ({truncate(old.get(name))} there, {truncate(new.get(name))} here)"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and not name.startswith(free)
    ]
    if differing:
        more = f" and {len(differing) - _NAMED} more" if len(differing) > _NAMED else ""
        raise UserError(
            f"{file.parent}: belongs to a run with other options:"
            f" {', '.join(differing[:_NAMED])}{more};"
            " choose another --workdir"
        )
