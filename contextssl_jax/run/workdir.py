"""Ownership of a workdir, which belongs to one config and one data set."""

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
from contextssl_jax.storage.paths import io_errors, resolve_path, workdir_error
from contextssl_jax.storage.safe_json import read_json, truncate

# Prefixes of the options that do not change the result and may differ on resume. Those of the data
# sets (data.resume_free_options) are passed to the functions below.
_MUTABLE = (
    *("data.threads", "data.prefetch", "train.parallel", "model.remat"),
    *("log.", "checkpoint.", "eval."),
)

_MAX_LISTED = 20  # options in an error message
CONFIG, _DATASET = "config.json", "data.json"


def fingerprint(config: ConfigDict, resume_free: tuple[str, ...]) -> str:
    """Return a hash, 12 hexadecimal digits, of the options that change the result.

    Args:
      config: the options of the run.
      resume_free: prefixes of the data sets' options that may differ on resume.
    """
    mutable = _MUTABLE + resume_free
    options = [[k, v] for k, v in sorted(flatten(config)) if not k.startswith(mutable)]
    return hashlib.sha256(json.dumps(options).encode()).hexdigest()[:12]


def check_workdir(folder: str, config: ConfigDict, resume_free: tuple[str, ...]) -> None:
    """Check that the folder is empty or belongs to the config; see `fingerprint`.

    Raises:
      UserError: the folder belongs to another config, has other content, or is not readable.
    """
    workdir = resolve_path(folder, "--workdir")
    try:
        if (workdir / CONFIG).exists():
            _check_config(workdir / CONFIG, config, _MUTABLE + resume_free)
        elif workdir.exists() and any(map(_is_foreign, workdir.iterdir())):
            raise UserError(
                f"--workdir: {workdir} is not empty and has no {CONFIG}. Use a different --workdir."
            )
    except io_errors() as error:
        raise workdir_error(folder, error) from error


@contextmanager
def acquire_workdir(
    workdir: epath.Path, config: ConfigDict, dataset: Dataset, resume_free: tuple[str, ...]
) -> Iterator[Lock]:
    """Lock the workdir, and write the config and the fingerprint of the data set if it is new.

    Args:
      workdir: the folder, for which `check_workdir` has passed.
      config: the options of the run.
      dataset: the data set of the run.
      resume_free: see `fingerprint`.

    Yields:
      The lock.

    Raises:
      UserError: another run holds the lock, the workdir belongs to another config or data set, or
        it is not writable.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except io_errors() as error:
        raise workdir_error(workdir, error) from error
    with Lock(workdir) as lock:
        check_workdir(str(workdir), config, resume_free)
        try:
            _write_if_missing(workdir / CONFIG, to_json(config))
            current = _dataset_fingerprint(dataset)
            _write_if_missing(workdir / _DATASET, json.dumps(current) + "\n")
            saved = read_json(workdir / _DATASET)
        except io_errors() as error:
            raise workdir_error(workdir, error) from error
        except ValueError as error:
            raise UserError(
                f"{workdir / _DATASET}: damaged ({truncate(error)}). Use a different --workdir."
            ) from error
        if saved != current:
            raise UserError(
                f"--workdir: the data set has changed since {workdir} was created (it had"
                f" {_format_dataset(saved)}; it has {_format_dataset(current)}). Restore the data"
                " set, or use a different --workdir."
            )
        yield lock


def _is_foreign(path: epath.Path) -> bool:
    """Return True unless the file is left by an interrupted start of a run."""
    return not path.name.startswith(("config.json.", "lock.json"))


def _write_if_missing(file: epath.Path, text: str) -> None:
    if not file.exists():
        write_atomic(file, text)


def _dataset_fingerprint(dataset: Dataset) -> dict[str, Any]:
    """Return the size and a checksum of the labels of each split, which are cheap to compute."""
    return {
        name: {
            "records": split.size,
            "labels": None if split.labels is None else zlib.crc32(split.labels.tobytes()),
        }
        for name, split in dataset.splits.items()
    }


def _format_dataset(fingerprints: Any) -> str:
    try:
        splits = (
            f"{name} {split['records']:,} records, labels {split['labels']}"
            for name, split in fingerprints.items()
        )
        return truncate("; ".join(splits))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return "unreadable content"


def _check_config(file: epath.Path, config: ConfigDict, mutable: tuple[str, ...]) -> None:
    """Raise UserError if the saved config is damaged or has a different fingerprint."""
    try:
        saved = dict(flatten(read_json(file)))
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{file}: damaged ({truncate(error)}). Use a different --workdir."
        ) from error
    current = dict(flatten(json.loads(to_json(config))))
    differences = [
        f"--config.{truncate(name)} (was {truncate(saved.get(name))},"
        f" is {truncate(current.get(name))})"
        for name in sorted(saved.keys() | current.keys())
        if saved.get(name) != current.get(name) and not name.startswith(mutable)
    ]
    if differences:
        hidden = len(differences) - _MAX_LISTED
        more = f" and {hidden} more" if hidden > 0 else ""
        raise UserError(
            f"--workdir: {file.parent} belongs to a run with different options:"
            f" {', '.join(differences[:_MAX_LISTED])}{more}. Use a different --workdir, or the"
            " options of that run."
        )
