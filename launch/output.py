"""What several processes print, on one console: whole lines, and the newest progress bar."""

import os
import select
import shutil

_LONGEST = 1 << 20  # bytes kept of a line that does not end


class Lines:
    """Cuts a stream into lines, as a terminal would show them.

    A carriage return starts a line over, so that of a progress bar only the newest state is left.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Returns the lines that the data finishes, without their ends."""
        *lines, rest = (self._rest + data).split(b"\n")
        body = rest.rstrip(b"\r")
        self._rest = body.rpartition(b"\r")[2] + rest[len(body) :]
        if len(self._rest) > _LONGEST:
            lines.append(self._rest)
            self._rest = b""
        return [line.rstrip(b"\r").rpartition(b"\r")[2] for line in lines]

    def unfinished(self) -> bytes:
        """Returns what stands on the line that has not ended."""
        return self._rest.rstrip(b"\r")

    def close(self) -> list[bytes]:
        """Returns the last line, where the stream ended without ending it."""
        return [self.unfinished()] if self.unfinished().strip() else []


class Console:
    """Writes lines of several processes to stdout and stderr, below them a line that changes.

    Lines of process 0 are as they would be if it ran alone; others begin with [1], [2], ...
    Nothing is raised when nobody reads any more: a run does not end with its terminal.
    """

    def __init__(self) -> None:
        self._colored = {fd for fd in (1, 2) if os.isatty(fd) and "NO_COLOR" not in os.environ}
        self._closed: set[int] = set()
        self._errors: set[bytes] = set()
        self._bar = b""
        self.terminal = os.isatty(2)

    def line(self, fd: int, index: int, text: bytes) -> None:
        """Writes a line of a process to stdout, 1, or stderr, 2; the same "error: " only once."""
        if text.startswith(b"error: "):
            if text in self._errors:
                return
            self._errors.add(text)
        self._write(2, b"\r\x1b[K" if self._bar else b"")
        self._write(fd, self._prefix(fd, index) + text + b"\n")
        self._write(2, self._bar)

    def bar(self, text: bytes) -> None:
        """Shows a line that the next one replaces; only on a terminal."""
        if self.terminal and 2 not in self._closed:
            columns = shutil.get_terminal_size().columns
            new = text.decode(errors="replace").rstrip()[: columns - 1].encode()
            if new != self._bar:
                self._write(2, b"\r\x1b[K" + new)
            self._bar = new

    def say(self, text: str) -> None:
        """Writes lines of the launcher itself to stderr."""
        for line in text.splitlines():
            self.line(2, 0, f"launch: {line}".encode())

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
