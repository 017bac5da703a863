"""Output of several processes on one console: complete lines, and the current progress bar."""

import os
import select
import shutil

_MAX_BYTES = 1 << 20  # of an incomplete line


class LineBuffer:
    """Splits a stream into lines, as a terminal displays them.

    A carriage return restarts the line, so that a progress bar is reduced to its current state.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that the data completes, without line endings."""
        *lines, rest = (self._rest + data).split(b"\n")
        body = rest.rstrip(b"\r")
        self._rest = body.rpartition(b"\r")[2] + rest[len(body) :]
        if len(self._rest) > _MAX_BYTES:
            lines.append(self._rest)
            self._rest = b""
        return [line.rstrip(b"\r").rpartition(b"\r")[2] for line in lines]

    def incomplete(self) -> bytes:
        """Return the current, incomplete line."""
        return self._rest.rstrip(b"\r")

    def close(self) -> list[bytes]:
        """Return the last line if the stream ended without a line ending."""
        return [self.incomplete()] if self.incomplete().strip() else []


class Console:
    """Writes lines of several processes to stdout and stderr, and a progress bar below them.

    Lines of process 0 have no prefix; those of other processes start with [1], [2], ... Write
    errors are ignored, so that a run does not end with its terminal.
    """

    def __init__(self) -> None:
        self._colored = {fd for fd in (1, 2) if os.isatty(fd) and "NO_COLOR" not in os.environ}
        self._closed: set[int] = set()
        self._errors: set[bytes] = set()
        self._progress = b""
        self.is_terminal = os.isatty(2)

    def write_line(self, fd: int, index: int, text: bytes) -> None:
        """Write a line of a process. Repeated lines that start with "error: " are skipped.

        Args:
          fd: 1 for stdout, 2 for stderr.
          index: index of the process.
          text: the line without its ending.
        """
        if text.startswith(b"error: "):
            if text in self._errors:
                return
            self._errors.add(text)
        self._write(2, b"\r\x1b[K" if self._progress else b"")
        self._write(fd, self._prefix(fd, index) + text + b"\n")
        self._write(2, self._progress)

    def set_progress(self, text: bytes) -> None:
        """Replace the progress bar. Does nothing unless stderr is a terminal."""
        if self.is_terminal and 2 not in self._closed:
            columns = shutil.get_terminal_size().columns
            new = text.decode(errors="replace").rstrip()[: columns - 1].encode()
            if new != self._progress:
                self._write(2, b"\r\x1b[K" + new)
            self._progress = new

    def log(self, text: str) -> None:
        """Write lines of the launcher to stderr."""
        for line in text.splitlines():
            self.write_line(2, 0, f"launch: {line}".encode())

    def _prefix(self, fd: int, index: int) -> bytes:
        if not index:
            return b""
        name = f"[{index}]"
        return (
            f"\x1b[3{1 + index % 6}m{name}\x1b[0m " if fd in self._colored else f"{name} "
        ).encode()

    def _write(self, fd: int, data: bytes) -> None:
        while data and fd not in self._closed:
            try:
                data = data[os.write(fd, data) :]
            except BlockingIOError:
                select.select([], [fd], [])
            except OSError:
                self._closed.add(fd)
