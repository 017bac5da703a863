"""JSON files that anyone may have written: read within bounds, and told in one printable line."""

import json
import os
import stat
from typing import Any

from etils import epath

from contextssl_jax.storage.paths import is_remote

_LARGEST = 256 << 20  # bytes of a file
_LONGEST = 80  # characters that a message repeats


def read_json(file: epath.Path) -> Any:
    """Reads a JSON file.

    Raises:
      FileNotFoundError: there is none.
      OSError: it cannot be read.
      ValueError: it is no JSON, no regular file, or larger or deeper than any of this project's.
    """
    if is_remote(file):
        size = file.stat().length
    else:
        told = os.stat(file)
        if stat.S_ISDIR(told.st_mode):
            raise IsADirectoryError(f"{file} is a folder")
        if not stat.S_ISREG(told.st_mode):  # a pipe would never end
            raise ValueError("it is no regular file")
        size = told.st_size
    if size > _LARGEST:
        raise ValueError(f"it has {size:,} bytes")
    return parse_json(file.read_text())


def parse_json(text: str) -> Any:
    """Parses JSON.

    Raises:
      ValueError: it is none, or too deep.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def truncate(value: Any) -> str:
    """Returns a value as a few printable characters, whatever it holds."""
    try:
        text = value if isinstance(value, str) else str(value)
    except (RecursionError, ValueError):  # such as a number of too many digits
        return "something unreadable"
    line = "".join(c if c.isprintable() else " " for c in text[: _LONGEST + 1])
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
