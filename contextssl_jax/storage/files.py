"""Files on a disk or in a bucket: written whole, added to, and compared by their size."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from etils import epath

from contextssl_jax.errors import UserError
from contextssl_jax.storage.paths import error_reason, io_errors, is_remote, resolve_path


def write_atomic(file: epath.Path, text: str) -> None:
    """Writes a file beside its place, then moves it there, so that no reader finds a part of it."""
    new = file.with_name(f"{file.name}.new")
    new.write_text(text)
    new.replace(file)


def append_text(file: epath.Path, text: str) -> None:
    """Adds text to a file; on a bucket, which knows no appending, by writing it anew."""
    if is_remote(file):
        file.write_text((file.read_text() if file.exists() else "") + text)
    else:
        with file.open("a") as opened:
            opened.write(text)


def has_size(path: Path, size: int) -> bool:
    """Says whether a file is there and has this many bytes."""
    return path.is_file() and path.stat().st_size == size


@contextmanager
def json_output(path: str | None) -> Iterator[Callable[[Any], None]]:
    """Provide a function that writes a value to the file of --out, if that is given.

    The path is resolved first, so that a wrong one ends the command before its work.

    Raises:
      UserError: the path cannot be resolved or the file cannot be written.
    """
    file = resolve_path(path, "--out") if path is not None else None

    def write(value: Any) -> None:
        if file is None:
            return
        try:
            file.write_text(json.dumps(value, indent=2) + "\n")
        except io_errors() as error:
            raise UserError(f"--out: cannot write {path} ({error_reason(error)})") from error

    yield write
