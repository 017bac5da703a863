"""A group of processes that start and stop together. The first failure stops the whole group."""

import math
import selectors
import signal
import time
from collections.abc import Sequence
from types import FrameType

from launch.output import Console
from launch.process import CHUNK, Command, Process, signal_name

_PIPE = 1 << 20  # maximum capacity of a pipe in bytes


def run(
    commands: Sequence[Command], *, grace_period: float = 10.0, failure_window: float = 1.0
) -> int:
    """Run commands concurrently, print their output, and wait for all of them.

    If one fails, the others receive SIGTERM, and SIGKILL after `grace_period`. The first SIGTERM,
    SIGINT or SIGHUP to this process is forwarded to all commands as SIGTERM, on which runs save
    without a time limit. A second signal kills them. Commands with the prefix of `kill_with_parent`
    are killed if this process is killed.

    Args:
      commands: the commands. The output of the first one has no prefix.
      grace_period: seconds between SIGTERM and SIGKILL after a failure.
      failure_window: seconds between the first failure and SIGTERM, in which the process that
        caused the failure can report it. Five times as long while all failed processes only report
        the loss of another process.

    Returns:
      0 if all commands return 0, otherwise the exit status of the process that failed first. After
      a signal, the exit status is 128 plus its number.
    """
    return ProcessGroup(grace_period, failure_window).run(commands)


class ProcessGroup:
    """Runs commands as `run` does, and provides the processes and signals afterwards.

    Attributes:
      processes: the started processes.
      signals: the received signals, in their order.
    """

    def __init__(
        self, grace_period: float = 10.0, failure_window: float = 1.0, log_failure: bool = True
    ) -> None:
        """Create a group without processes.

        Args:
          grace_period: see `run`.
          failure_window: see `run`.
          log_failure: True to print the last lines of the process that failed first.
        """
        self._grace_period, self._failure_window = grace_period, failure_window
        self._log_failure = log_failure
        self._console = Console()
        self.processes: list[Process] = []
        self.signals: list[int] = []
        self._signal_logged = False

    def run(self, commands: Sequence[Command]) -> int:
        """Run the commands; see the function `run`."""
        handled = [
            one
            for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
            if signal.getsignal(one) is not signal.SIG_IGN  # ignored under nohup
        ]
        previous_handlers = {one: signal.signal(one, self._handle_signal) for one in handled}
        try:
            with selectors.DefaultSelector() as selector:
                for i, command in enumerate(commands):
                    if self.signals:
                        break
                    process = Process(i, command, self._console)
                    self.processes.append(process)
                    for fd in process.streams:
                        selector.register(fd, selectors.EVENT_READ, process)
                self._wait(selector)
            return self._exit_status(all_started=len(self.processes) == len(commands))
        finally:
            for process in self._alive():
                process.kill()
            for one, handler in previous_handlers.items():
                signal.signal(one, handler)

    def _wait(self, selector: selectors.BaseSelector) -> None:
        """Print output, forward signals and handle failures until all processes have exited."""
        kill_time = math.inf
        while self._alive():
            self._read(selector.select(0.1), selector)
            self._log_signal()
            now = time.monotonic()
            if kill_time == math.inf and now >= self._stop_time():
                kill_time = now + self._grace_period
                for process in self._alive():
                    process.stopped_after_failure = True
                    process.request_stop()
            if now >= kill_time:
                for process in self._alive():
                    process.kill()
        # Read the rest of the pipes, but do not wait for their end, since a child of a process may
        # keep them open.
        for _ in range(_PIPE // CHUNK):
            if not selector.get_map() or not (ready := selector.select(0)):
                break
            self._read(ready, selector)

    def _read(
        self, ready: list[tuple[selectors.SelectorKey, int]], selector: selectors.BaseSelector
    ) -> None:
        for key, _ in ready:
            if not key.data.read(key.fd):
                selector.unregister(key.fd)

    def _alive(self) -> list[Process]:
        return [process for process in self.processes if process.poll()]

    def _failed(self) -> list[Process]:
        """Return the failed processes, starting with the cause of the failure."""
        failed = [process for process in self.processes if process.end_time and process.status]
        return sorted(failed, key=Process.blame_key)

    def _stop_time(self) -> float:
        """Return the time at which to stop the other processes; infinity if none has failed."""
        failed = self._failed()
        if not failed:
            return math.inf
        is_consequence, _ = failed[0].blame_key()
        window = 5 * self._failure_window if is_consequence else self._failure_window
        return min(process.end_time or math.inf for process in failed) + window

    def _handle_signal(self, number: int, frame: FrameType | None) -> None:
        # Not in the loop, which blocks while the output is not read.
        self.signals.append(number)
        for process in self._alive():
            process.request_stop() if len(self.signals) == 1 else process.kill()

    def _log_signal(self) -> None:
        """Log the first signal, and forward it to processes that were starting when it arrived."""
        if self.signals and not self._signal_logged:
            self._signal_logged = True
            name = signal_name(self.signals[0])
            self._console.log(f"{name}: saving and stopping all processes; repeat to kill them")
            for process in self._alive():
                process.request_stop()

    def _exit_status(self, all_started: bool) -> int:
        failed = self._failed()
        if not all_started or failed and len(self.signals) > 1:
            self._console.log("killed")
            return 128 + self.signals[-1]
        if not failed:
            return 0
        first, lines = failed[0], failed[0].last_lines()
        if not self._log_failure:
            return first.status
        self._console.log(
            f"process {first.index} failed first, {first.describe_exit()}; "
            + ("last lines of its stderr:" if lines else "its stderr is empty")
        )
        for line in lines:
            self._console.log("  " + line.decode(errors="replace"))
        return first.status
