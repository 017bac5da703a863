"""Ownership of a workdir, which belongs to one config and one data set."""

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from contextssl_jax.config import RENAMED, flatten, to_json
from contextssl_jax.data.dataset import Dataset
from contextssl_jax.errors import UserError
from contextssl_jax.options import EXTENDS, FREE, Option, Resume, declarations
from contextssl_jax.run.lock import Lock
from contextssl_jax.storage.files import write_atomic
from contextssl_jax.storage.paths import io_errors, list_numbered, resolve_path, workdir_error
from contextssl_jax.storage.safe_json import read_json, truncate

_MAX_LISTED = 20  # options in an error message
CONFIG, _DATASET, _INTERRUPTED = "config.json", "data.json", "interrupted.json"

Changes = dict[str, list[Any]]  # [saved, current] by option


def fingerprint(config: ConfigDict) -> str:
    """Return a hash, 12 hexadecimal digits, of the options that may not freely change on resume."""
    free = {name for name, option, _ in declarations(config) if option.resume is FREE}
    options = [[k, v] for k, v in sorted(flatten(config)) if k not in free]
    return hashlib.sha256(json.dumps(options).encode()).hexdigest()[:12]


def check_workdir(folder: str, config: ConfigDict) -> Changes:
    """Check that the folder is empty or belongs to the config.

    Returns:
      The options that differ from those saved, and may do so under a condition; see
      `options.Resume`. The condition of `train.steps` is checked.

    Raises:
      UserError: the folder belongs to another config, has other content, or is not readable.
    """
    workdir = resolve_path(folder, "--workdir")
    try:
        if (workdir / CONFIG).exists():
            return _check_config(workdir / CONFIG, config)
        if workdir.exists() and any(map(_is_foreign, workdir.iterdir())):
            raise UserError(
                f"--workdir: {workdir} is not empty and has no {CONFIG}. Use a different --workdir."
            )
    except io_errors() as error:
        raise workdir_error(folder, error) from error
    return {}


def check_same_run(folder: str, config: ConfigDict) -> None:
    """Check a workdir, without the changes that only training can make.

    Raises:
      UserError: see check_workdir, or such an option differs.
    """
    if changes := check_workdir(folder, config):
        raise _different_options(resolve_path(folder, "--workdir"), changes)


@contextmanager
def acquire_workdir(workdir: epath.Path, config: ConfigDict, dataset: Dataset) -> Iterator[Lock]:
    """Lock the workdir, and write the config and, if new, the fingerprint of the data set.

    Args:
      workdir: the folder, for which `check_workdir` has passed.
      config: the options of the run.
      dataset: the data set of the run.

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
        check_workdir(str(workdir), config)
        try:
            _write_if_different(workdir / CONFIG, to_json(config))
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


def mark_interrupted(workdir: epath.Path, interrupted: bool) -> None:
    """Mark a run whose steps are all saved, but whose last monitor or report a signal interrupted.

    The mark lets `launch/finished.py` distinguish it from a finished run without this report.
    """
    if interrupted:
        write_atomic(workdir / _INTERRUPTED, "{}\n")
    else:
        (workdir / _INTERRUPTED).unlink(missing_ok=True)


def _is_foreign(path: epath.Path) -> bool:
    """Return True unless the file is left by an interrupted start of a run."""
    return not path.name.startswith(("config.json.", "lock.json"))


def _write_if_missing(file: epath.Path, text: str) -> None:
    if not file.exists():
        write_atomic(file, text)


def _write_if_different(file: epath.Path, text: str) -> None:
    if not file.exists() or file.read_text() != text:
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


def _check_config(file: epath.Path, config: ConfigDict) -> Changes:
    """Return the conditional changes of a saved config; raise UserError if it has others."""
    try:
        saved = {RENAMED.get(name, name): value for name, value in flatten(read_json(file))}
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{file}: damaged ({truncate(error)}). Use a different --workdir."
        ) from error
    current = dict(flatten(json.loads(to_json(config))))
    declared = {name: option for name, option, _ in declarations(config)}
    changes: Changes = {}
    refused: Changes = {}
    for name in sorted(saved.keys() | current.keys()):
        option = declared.get(name)
        before = saved.get(name, option.before if option else None)
        if before == current.get(name) or _resume_rule(name, option, declared) is FREE:
            continue
        conditional = option and option.resume is not Resume.FIXED
        (changes if conditional else refused)[name] = [before, current.get(name)]
    if refused:
        raise _different_options(file.parent, refused)
    for name, (before, now) in changes.items():
        if declared[name].resume is EXTENDS:
            _check_steps(file.parent, name, before, now)
    return changes


def _resume_rule(name: str, option: Option | None, declared: Mapping[str, Option]) -> Resume:
    """Return the rule of an option; one that no longer exists has that of its whole section."""
    if option:
        return option.resume
    section = name.split(".")[0] + "."
    rules = {one.resume for key, one in declared.items() if key.startswith(section)}
    return FREE if rules == {FREE} else Resume.FIXED


def _check_steps(workdir: epath.Path, name: str, before: Any, now: int) -> None:
    """Raise UserError if a checkpoint is beyond the new number of steps."""
    newest = max((int(path.name) for path in list_numbered(workdir / "checkpoints")), default=0)
    if newest > now:
        raise UserError(
            f"--config.{name}: was {truncate(before)}, is {now}, but {workdir} has a checkpoint of"
            f" step {newest}. Use at least {newest}, or a different --workdir."
        )


def _different_options(workdir: epath.Path, differences: Changes) -> UserError:
    listed = [
        f"--config.{truncate(name)} (was {truncate(before)}, is {truncate(now)})"
        for name, (before, now) in differences.items()
    ]
    hidden = len(listed) - _MAX_LISTED
    more = f" and {hidden} more" if hidden > 0 else ""
    return UserError(
        f"--workdir: {workdir} belongs to a run with different options:"
        f" {', '.join(listed[:_MAX_LISTED])}{more}. Use a different --workdir, or the options of"
        " that run."
    )
