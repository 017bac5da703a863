"""Several commands that live and end together: the first failure ends all, and is named."""

import math
import selectors
import signal
import time
from collections.abc import Sequence
from types import FrameType

from launch.output import Console
from launch.process import CHUNK, Command, Process, signal_name

_PIPE = 1 << 20  # bytes that a pipe can hold


def run(commands: Sequence[Command], *, grace: float = 10.0, moment: float = 1.0) -> int:
    """Starts the commands, shows what they print, and returns when all have ended.

    Where one fails, the others get SIGTERM, and SIGKILL after `grace`. SIGTERM, SIGINT and SIGHUP
    are passed on to all, once, as SIGTERM, so that they save; then they have all the time they
    want. A second one kills them. That they do not outlive this process, even if it is killed, is
    for the commands to begin with `leash`.

    Args:
      commands: to run at once; the first one's output has no prefix.
      grace: seconds between SIGTERM and SIGKILL after a failure.
      moment: seconds in which others may fail first-hand as well, before they are ended. Five
        times that while only processes that lost another have failed.

    Returns:
      0 if all returned 0, else the status of the process that failed first; 128 and the signal's
      number for one ended by a signal, and if a second signal killed all.
    """
    return Together(grace, moment).run(commands)


class Together:
    """What `run` does, for those who ask afterwards.

    Attributes:
      processes: that were started.
      received: signals to stop, in their order.
    """

    def __init__(self, grace: float = 10.0, moment: float = 1.0, quiet: bool = False) -> None:
        """See `run`; the quiet tell no failure again."""
        self._grace, self._moment, self._quiet = grace, moment, quiet
        self._console = Console()
        self.processes: list[Process] = []
        self.received: list[int] = []
        self._told = False

    def run(self, commands: Sequence[Command]) -> int:
        """See `run`."""
        handled = [
            one
            for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
            if signal.getsignal(one) is not signal.SIG_IGN  # as under nohup
        ]
        before = {one: signal.signal(one, self._receive) for one in handled}
        try:
            with selectors.DefaultSelector() as selector:
                for i, command in enumerate(commands):
                    if self.received:
                        break
                    process = Process(i, command, self._console)
                    self.processes.append(process)
                    for fd in process.streams:
                        selector.register(fd, selectors.EVENT_READ, process)
                self._watch(selector)
            return self._verdict(started=len(self.processes) == len(commands))
        finally:
            for process in self._alive():
                process.kill()
            for one, handler in before.items():
                signal.signal(one, handler)

    def _watch(self, selector: selectors.BaseSelector) -> None:
        """Shows output, and minds signals and failures, until all have ended."""
        kill_at = math.inf
        while self._alive():
            self._show(selector.select(0.1), selector)
            self._pass_on()
            now = time.monotonic()
            if kill_at == math.inf and now >= self._end_at():
                kill_at = now + self._grace
                for process in self._alive():
                    process.given_up = True
                    process.ask()
            if now >= kill_at:
                for process in self._alive():
                    process.kill()
        # What is still in the pipes, no longer than they can be: their end is not waited for, as a
        # stray process of a process may keep one open.
        for _ in range(_PIPE // CHUNK):
            if not selector.get_map() or not (ready := selector.select(0)):
                break
            self._show(ready, selector)

    def _show(
        self, ready: list[tuple[selectors.SelectorKey, int]], selector: selectors.BaseSelector
    ) -> None:
        for key, _ in ready:
            if not key.data.read(key.fd):
                selector.unregister(key.fd)

    def _alive(self) -> list[Process]:
        return [process for process in self.processes if process.poll()]

    def _failed(self) -> list[Process]:
        """Returns the processes that failed, the first to blame first."""
        failed = [process for process in self.processes if process.ended and process.status]
        return sorted(failed, key=Process.rank)

    def _end_at(self) -> float:
        """Returns when the other processes are to be ended; infinity while none has failed."""
        failed = self._failed()
        if not failed:
            return math.inf
        victim, _ = failed[0].rank()
        patience = 5 * self._moment if victim else self._moment
        return min(process.ended or math.inf for process in failed) + patience

    def _receive(self, number: int, frame: FrameType | None) -> None:
        # Here and not in the loop, which waits where nobody reads what it writes.
        self.received.append(number)
        for process in self._alive():
            process.ask() if len(self.received) == 1 else process.kill()

    def _pass_on(self) -> None:
        """Tells the user of a signal, and processes that were just being started when it came."""
        if self.received and not self._told:
            self._told = True
            name = signal_name(self.received[0])
            self._console.say(f"{name}: all processes save and stop; once more kills them")
            for process in self._alive():
                process.ask()

    def _verdict(self, started: bool) -> int:
        failed = self._failed()
        if not started or failed and len(self.received) > 1:
            self._console.say("killed")
            return 128 + self.received[-1]
        if not failed:
            return 0
        first, said = failed[0], failed[0].last_words()
        if self._quiet:
            return first.status
        self._console.say(
            f"process {first.index} failed first, {first.fate()}; "
            + ("the end of its stderr:" if said else "its stderr is empty")
        )
        for line in said:
            self._console.say("  " + line.decode(errors="replace"))
        return first.status
