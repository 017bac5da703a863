"""File operations on disk and in Google Cloud Storage: atomic writes, appends, --out."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from etils import epath

from contextssl_jax.errors import UserError
from contextssl_jax.storage.paths import error_reason, io_errors, is_remote, resolve_path


def write_atomic(file: epath.Path, content: str | bytes) -> None:
    """Write a file atomically, by renaming a temporary file in the same folder."""
    new = file.with_name(f"{file.name}.new")
    if isinstance(content, str):
        new.write_text(content)
    else:
        new.write_bytes(content)
    new.replace(file)


def append_text(file: epath.Path, text: str) -> None:
    """Append text to a file. Rewrites a remote file, since object storage has no append."""
    if is_remote(file):
        file.write_text((file.read_text() if file.exists() else "") + text)
    else:
        with file.open("a") as opened:
            opened.write(text)


def has_size(path: Path, size: int) -> bool:
    """Return True if the file exists and has this size in bytes."""
    return path.is_file() and path.stat().st_size == size


@contextmanager
def reraise_write_errors(path: object, option: str) -> Iterator[None]:
    """Re-raise I/O errors as UserErrors that name the path and the option that sets it."""
    try:
        yield
    except io_errors() as error:
        raise UserError(
            f"{option}: cannot write {path} ({error_reason(error)}). Choose a writable path."
        ) from error


@contextmanager
def json_output(path: str | None) -> Iterator[Callable[[Any], None]]:
    """Yield a function that writes a value as JSON to the file of --out.

    The path is resolved first, so that the command fails early if it is invalid.

    Args:
      path: the value of --out; None to write nothing.

    Raises:
      UserError: the path is invalid, or the file is not writable.
    """
    file = resolve_path(path, "--out") if path is not None else None

    def write(value: Any) -> None:
        if file is None:
            return
        with reraise_write_errors(path, "--out"):
            file.write_text(json.dumps(value, indent=2) + "\n")

    yield write
