"""A run's folder: it belongs to one config, whose options decide the result."""

import hashlib
import json

from etils import epath
from ml_collections import ConfigDict

from contextssl_jax.config import flatten, to_json
from contextssl_jax.errors import UserError

# Options that change where and how fast a run goes, not what comes out: they may differ on resume.
_FREE = (
    *("data.dir", "data.threads", "data.prefetch", "train.parallel"),
    *("folder.path", "bench3d.path", "bench3d.lists"),
    *("log.", "checkpoint.", "eval."),
)

_NAME = "config.json"
_NEW = "config.json.new"  # while it is written


def fingerprint(config: ConfigDict) -> str:
    """Returns 12 hexadecimal digits that differ where options that decide the result differ."""
    decisive = [[k, v] for k, v in sorted(flatten(config)) if not k.startswith(_FREE)]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:12]


def check(folder: str, config: ConfigDict) -> epath.Path:
    """Returns the folder as a path, if it is this config's or is free.

    Raises:
      UserError: it belongs to another config, or to something else, or cannot be read.
    """
    workdir = epath.Path(folder)
    try:
        if (workdir / _NAME).exists():
            _compare(workdir / _NAME, config)
        elif workdir.exists() and any(path.name != _NEW for path in workdir.iterdir()):
            raise UserError(f"{workdir}: is not empty and has no {_NAME}; choose another --workdir")
    except OSError as error:
        raise UserError(f"--workdir: cannot use {folder} ({error.strerror or error})") from error
    return workdir


def claim(workdir: epath.Path, config: ConfigDict) -> None:
    """Makes a folder that `check` has passed this config's, by writing its config.json.

    Raises:
      UserError: it cannot be written.
    """
    try:
        if not (workdir / _NAME).exists():
            workdir.mkdir(parents=True, exist_ok=True)
            (workdir / _NEW).write_text(to_json(config))
            (workdir / _NEW).replace(workdir / _NAME)
    except OSError as error:
        raise UserError(f"--workdir: cannot use {workdir} ({error.strerror or error})") from error


def _compare(file: epath.Path, config: ConfigDict) -> None:
    try:
        saved = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{file}: is damaged ({error}); choose another --workdir") from error
    old, new = dict(flatten(saved)), dict(flatten(json.loads(to_json(config))))
    differing = [
        f"{name} ({old.get(name)} there, {new.get(name)} here)"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) and not name.startswith(_FREE)
    ]
    if differing:
        raise UserError(
            f"{file.parent}: belongs to a run with other options: {', '.join(differing)};"
            " choose another --workdir"
        )
