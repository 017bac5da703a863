"""A run's folder: it belongs to one config, whose options decide the result."""

import json
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from contextssl_jax.config import flatten, to_json
from contextssl_jax.errors import UserError

# Options that change where and how fast a run goes, not what comes out: they may differ on resume.
_FREE = ("data.dir", "data.threads", "data.prefetch", "log.", "checkpoint.", "train.parallel")


def claim(folder: str, config: ConfigDict, write: bool) -> epath.Path:
    """Makes the folder this config's, or checks that it already is.

    Args:
      folder: the working directory.
      config: of the run.
      write: whether this process writes the folder's `config.json`; one of them does.

    Raises:
      UserError: the folder belongs to another config, or to something else, or is not writable.
    """
    try:
        return _claim(epath.Path(folder), config, write)
    except OSError as error:
        raise UserError(f"--workdir: cannot use {folder} ({error.strerror or error})") from error


def _claim(workdir: epath.Path, config: ConfigDict, write: bool) -> epath.Path:
    file = workdir / "config.json"
    if file.exists():
        try:
            _compare(file, json.loads(file.read_text()), config)
        except json.JSONDecodeError as error:
            raise UserError(f"{file}: is damaged ({error}); choose another --workdir") from error
        return workdir
    if workdir.exists() and any(workdir.iterdir()):
        raise UserError(f"{workdir}: is not empty and has no config.json; choose another --workdir")
    if write:
        workdir.mkdir(parents=True, exist_ok=True)
        new = workdir / "config.json.new"
        new.write_text(to_json(config))
        new.replace(file)
    return workdir


def _compare(file: epath.Path, saved: dict[str, Any], config: ConfigDict) -> None:
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
