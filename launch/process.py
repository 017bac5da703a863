"""One of the processes that are started together: its output, its end, and whose fault that was."""

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

from launch.output import Console, Lines

CHUNK = 1 << 13  # bytes shown of a process before the others have their turn
_SHOWN, _KEPT = 20, 200  # lines of a failed process's stderr: told again; looked at for the cause

# What a process writes whose own fault it is, at the start of a line.
_FAULT = re.compile(rb"error: |[\w.]*(Error|Exception|Interrupt|Exit)\b")
# What processes write that lost another one, be it main.py, JAX, Gloo or NCCL.
_LOST = re.compile(
    rb"\blost\b|process \d+ (ended|failed): |another (task|process)|remote (task|process)|peer"
    rb"|heartbeat|coordination.?service|\bbarrier\b|gloo|connection (closed|reset|refused)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Command:
    """A process to start: its arguments, and environment variables besides the inherited ones."""

    arguments: Sequence[str]
    environment: Mapping[str, str]


class Process:
    """A started command, whose output is shown on the console."""

    def __init__(self, index: int, command: Command, console: Console) -> None:
        """Starts it; on a terminal, the first process gets one too, for its progress bar."""
        self.index, self._console = index, console
        output, their_output = os.pipe()
        errors, their_errors = _terminal() if index == 0 and console.terminal else os.pipe()
        self._popen = subprocess.Popen(
            command.arguments,
            env={**os.environ, **command.environment},
            stdin=subprocess.DEVNULL,
            stdout=their_output,
            stderr=their_errors,
            start_new_session=True,  # a terminal's Ctrl-C comes through the launcher alone
        )
        os.close(their_output)
        os.close(their_errors)
        os.set_blocking(output, False)
        os.set_blocking(errors, False)
        self.streams = {output: (1, Lines()), errors: (2, Lines())}
        self._said: deque[bytes] = deque(maxlen=_KEPT)
        self.ended: float | None = None  # when
        self.asked = False  # to save and stop
        self.given_up = False  # told to stop since another failed

    def read(self, fd: int) -> bool:
        """Shows what it has printed there; returns whether there may be more, else closes it."""
        target, lines = self.streams[fd]
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return True
        except OSError:  # how a terminal ends
            data = b""
        whole = lines.feed(data) if data else lines.close()
        has_bar = target == 2 and self.index == 0
        if has_bar and whole:
            self._console.bar(b"")
        for line in whole:
            if target == 2:
                self._said.append(line)
            self._console.line(target, self.index, line)
        if has_bar and data:
            self._console.bar(lines.unfinished())
        if not data:
            os.close(fd)
        return bool(data)

    def ask(self) -> None:
        """Asks it once to save and stop."""
        if not self.asked:
            self.asked = True
            self._popen.terminate()

    def kill(self) -> None:
        """Ends it and whatever it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)

    def poll(self) -> bool:
        """Returns whether it is alive; the first time that it is not, ends what it left behind."""
        if self.ended is None and self._popen.poll() is not None:
            self.ended = time.monotonic()
            self.kill()
        return self.ended is None

    @property
    def status(self) -> int:
        """Its exit status as a shell tells it, once it has ended."""
        code = self._popen.returncode
        return 128 - code if code < 0 else code

    def fate(self) -> str:
        """Returns how it ended, in words."""
        code = self._popen.returncode
        return f"killed by {signal_name(-code)}" if code < 0 else f"with status {code}"

    def rank(self) -> tuple[bool, float]:
        """Returns a sort key among failed processes: the one to blame comes first."""
        lost = any(_LOST.search(line) for line in self._said)
        victim = not self._fault() and (lost or self.given_up)
        return victim, self.ended or math.inf

    def last_words(self) -> list[bytes]:
        """Returns its last lines of stderr, up to the one that names the fault."""
        said = list(self._said)
        return said[: self._fault() or len(said)][-_SHOWN:]

    def _fault(self) -> int:
        """Returns how many lines lead up to the last that names a fault of its own; 0 for none."""
        for i in range(len(self._said), 0, -1):
            line = self._said[i - 1]
            if _FAULT.match(line) and not _LOST.search(line):
                return i
        return 0


def signal_name(number: int) -> str:
    """Returns a signal's name, such as SIGTERM."""
    return {one.value: one.name for one in signal.Signals}.get(number, f"signal {number}")


def leash() -> list[str]:
    """Returns what to put before a command so that the kernel kills it when its parent has died.

    Nothing where the system cannot do that: it takes Linux, and setpriv of util-linux.
    """
    command = [shutil.which("setpriv") or "", "--pdeathsig", "KILL"]
    try:
        able = not subprocess.run([*command, "true"], capture_output=True).returncode
    except OSError:
        able = False
    return command if able else []


def _terminal() -> tuple[int, int]:
    """Returns both ends of a terminal as wide as stderr's, for a progress bar to be drawn on."""
    ours, theirs = os.openpty()
    attributes = termios.tcgetattr(theirs)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(theirs, termios.TCSANOW, attributes)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, fcntl.ioctl(2, termios.TIOCGWINSZ, bytes(8)))
    return ours, theirs
