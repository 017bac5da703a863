"""A process of a group: its output, its exit, and whether it caused a failure of the group."""

import fcntl
import math
import os
import re
import shutil
import signal
import subprocess
import termios
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from launch.output import Console, LineBuffer

CHUNK = 1 << 13  # bytes to read from a process before reading from the others
_PRINTED_LINES, _STORED_LINES = 20, 200  # of a failed process's stderr

# Start of a line that a process prints for its own error.
_OWN_ERROR = re.compile(rb"error: |[\w.]*(Error|Exception|Interrupt|Exit)\b")
# Part of a line that main.py, JAX, Gloo or NCCL print after the loss of another process.
_LOST_PROCESS = re.compile(
    rb"\blost\b|process \d+ (ended|failed): |another (task|process)|remote (task|process)|peer"
    rb"|heartbeat|coordination.?service|\bbarrier\b|gloo|connection (closed|reset|refused)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Command:
    """A command to start: its arguments, and environment variables to add to the inherited ones."""

    arguments: Sequence[str]
    environment: Mapping[str, str]


class Process:
    """A running command, whose output is written to the console."""

    def __init__(self, index: int, command: Command, console: Console) -> None:
        """Start the command. If stderr is a terminal, process 0 has one too, for a progress bar."""
        self.index, self._console = index, console
        stdout, child_stdout = os.pipe()
        stderr, child_stderr = _open_terminal() if index == 0 and console.is_terminal else os.pipe()
        self._popen = subprocess.Popen(
            command.arguments,
            env={**os.environ, **command.environment},
            stdin=subprocess.DEVNULL,
            stdout=child_stdout,
            stderr=child_stderr,
            start_new_session=True,  # only the launcher receives a terminal's Ctrl-C
        )
        os.close(child_stdout)
        os.close(child_stderr)
        os.set_blocking(stdout, False)
        os.set_blocking(stderr, False)
        self.streams = {stdout: (1, LineBuffer()), stderr: (2, LineBuffer())}
        self._stderr_lines: deque[bytes] = deque(maxlen=_STORED_LINES)
        self.end_time: float | None = None  # by time.monotonic
        self.stop_requested = False
        self.stopped_after_failure = False  # stopped because another process has failed

    def read(self, fd: int) -> bool:
        """Copy available output to the console. Return False, and close `fd`, at its end."""
        target, lines = self.streams[fd]
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return True
        except OSError:  # end of a terminal
            data = b""
        complete = lines.feed(data) if data else lines.close()
        has_progress = target == 2 and self.index == 0
        if has_progress and complete:
            self._console.set_progress(b"")
        for line in complete:
            if target == 2:
                self._stderr_lines.append(line)
            self._console.write_line(target, self.index, line)
        if has_progress and data:
            self._console.set_progress(lines.incomplete())
        if not data:
            os.close(fd)
        return bool(data)

    def request_stop(self) -> None:
        """Send SIGTERM, on which a run saves and exits. Only the first call has an effect."""
        if not self.stop_requested:
            self.stop_requested = True
            self._popen.terminate()

    def kill(self) -> None:
        """Kill the process and its children."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)

    def poll(self) -> bool:
        """Return True if the process is alive. Kill its remaining children once it has exited."""
        if self.end_time is None and self._popen.poll() is not None:
            self.end_time = time.monotonic()
            self.kill()
        return self.end_time is None

    @property
    def status(self) -> int:
        """The exit status in the convention of shells; valid after the exit."""
        code = self._popen.returncode
        return 128 - code if code < 0 else code

    def describe_exit(self) -> str:
        """Return how the process exited."""
        code = self._popen.returncode
        return f"killed by {signal_name(-code)}" if code < 0 else f"with status {code}"

    def blame_key(self) -> tuple[bool, float]:
        """Return a sort key of failed processes, which is smallest for the cause of the failure."""
        lost_another = any(_LOST_PROCESS.search(line) for line in self._stderr_lines)
        is_consequence = not self._own_error() and (lost_another or self.stopped_after_failure)
        return is_consequence, self.end_time or math.inf

    def last_lines(self) -> list[bytes]:
        """Return the last lines of stderr, up to the last own error if there is one."""
        lines = list(self._stderr_lines)
        return lines[: self._own_error() or len(lines)][-_PRINTED_LINES:]

    def _own_error(self) -> int:
        """Return the line number, from 1, of the last own error in stderr; 0 if there is none."""
        for i in range(len(self._stderr_lines), 0, -1):
            line = self._stderr_lines[i - 1]
            if _OWN_ERROR.match(line) and not _LOST_PROCESS.search(line):
                return i
        return 0


def signal_name(number: int) -> str:
    """Return the name of a signal, such as SIGTERM."""
    return {one.value: one.name for one in signal.Signals}.get(number, f"signal {number}")


def kill_with_parent() -> list[str]:
    """Return a command prefix with which the kernel kills the command when its parent dies.

    The prefix is empty on systems other than Linux, and without setpriv of util-linux.
    """
    prefix = [shutil.which("setpriv") or "", "--pdeathsig", "KILL"]
    try:
        available = not subprocess.run([*prefix, "true"], capture_output=True).returncode
    except OSError:
        available = False
    return prefix if available else []


def _open_terminal() -> tuple[int, int]:
    """Return both ends of a pseudo-terminal of the size of stderr's terminal."""
    parent, child = os.openpty()
    attributes = termios.tcgetattr(child)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(child, termios.TCSANOW, attributes)
    fcntl.ioctl(child, termios.TIOCSWINSZ, fcntl.ioctl(2, termios.TIOCGWINSZ, bytes(8)))
    return parent, child
