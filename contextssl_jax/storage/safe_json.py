"""Reading of untrusted JSON files, with limits, and printing of untrusted values."""

import json
import os
import stat
from contextlib import suppress
from typing import Any

from etils import epath

from contextssl_jax.storage.paths import is_remote

_MAX_BYTES = 256 << 20  # of a file
_MAX_CHARACTERS = 80  # of a value in a message


def read_json(file: epath.Path) -> Any:
    """Read a JSON file.

    Raises:
      FileNotFoundError: the file does not exist.
      OSError: the file is not readable.
      ValueError: the file is not valid JSON, not a regular file, too large, or nested too deeply.
    """
    if is_remote(file):
        size = file.stat().length
    else:
        status = os.stat(file)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(f"{file} is a folder")
        if not stat.S_ISREG(status.st_mode):  # reading a pipe may block
            raise ValueError("not a regular file")
        size = status.st_size
    if size > _MAX_BYTES:
        raise ValueError(f"too large: {size:,} bytes, the maximum is {_MAX_BYTES:,}")
    return parse_json(file.read_text())


def parse_json(text: str) -> Any:
    """Parse JSON.

    Raises:
      ValueError: the text is not valid JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json_lines(file: epath.Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON-lines file without invalid lines, such as one cut by a kill.

    A file that does not exist has none.
    """
    text = file.read_bytes().decode(errors="replace") if file.exists() else ""
    found = []
    for line in text.splitlines():
        with suppress(ValueError):
            found.append(parse_json(line))
    return [value for value in found if isinstance(value, dict)]


def truncate(value: Any) -> str:
    """Return a value as one line of at most 80 printable characters, followed by "..." if cut."""
    try:
        text = value if isinstance(value, str) else str(value)
    except (RecursionError, ValueError):  # for example an integer with too many digits
        return "unreadable value"
    line = "".join(c if c.isprintable() else " " for c in text[: _MAX_CHARACTERS + 1])
    return line if len(line) <= _MAX_CHARACTERS else f"{line[:_MAX_CHARACTERS]}..."
