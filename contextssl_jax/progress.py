"""Progress of tasks: a bar on a terminal, and a line whenever 30 seconds have passed without one.

Tasks nest, and the line is of the innermost one. Short tasks log nothing, and no task, such as a
compilation, is silent for long.
"""

import logging
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
_log = logging.getLogger(__name__)
_INTERVAL = 30.0  # seconds


class Task:
    """A running task.

    Attributes:
      bar: on a terminal, if the total is known; else None.
    """

    def __init__(
        self, description: str, total: int | None, unit: str, done: int, leave: bool
    ) -> None:
        """Create the bar; see `task`."""
        self._description, self._total, self._unit, self._done = description, total, unit, done
        self.bar: tqdm | None = None
        if total is not None and sys.stderr.isatty():
            self.bar = tqdm(
                desc=description,
                total=total,
                initial=done,
                unit=f" {unit}",
                unit_scale=unit == "B",
                dynamic_ncols=True,
                leave=leave,
            )

    def advance(self, count: int = 1) -> None:
        """Add to what is done."""
        self._done += count
        if self.bar is not None:
            self.bar.update(count)

    def __str__(self) -> str:
        if self._total is None:
            return self._description
        return f"{self._description}: {self._done:,} of {self._total:,} {self._unit}"


class _Heartbeat(logging.Handler):
    """Logs the innermost task whenever the package has logged nothing for the interval."""

    def __init__(self) -> None:
        super().__init__()
        self._tasks: list[Task] = []
        self._start = self._last_line = 0.0
        self._ended = threading.Event()

    def begin(self, task: Task) -> None:
        if not self._tasks:
            self._start = self._last_line = time.monotonic()
            self._ended = threading.Event()
            logging.getLogger(__package__).addHandler(self)
            threading.Thread(target=self._run, args=(self._ended,), daemon=True).start()
        self._tasks.append(task)

    def end(self, task: Task) -> None:
        self._tasks.remove(task)
        if not self._tasks:
            self._ended.set()
            logging.getLogger(__package__).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._last_line = time.monotonic()

    def _run(self, ended: threading.Event) -> None:
        while not ended.wait(max(0.0, self._last_line + _INTERVAL - time.monotonic())):
            now, task = time.monotonic(), next(reversed(self._tasks), None)
            if task is None or now < self._last_line + _INTERVAL:
                continue
            self._last_line = now
            if task.bar is None:
                seconds = round(now - self._start)
                _log.info("%s, %s since the start", task, timedelta(seconds=seconds))
            else:
                task.bar.refresh()  # updates its time


_heartbeat = _Heartbeat()


@contextmanager
def task(
    description: str,
    total: int | None = None,
    unit: str = "",
    done: int = 0,
    leave: bool = False,
) -> Iterator[Task]:
    """Display the with block as a task.

    Args:
      description: what it does, such as "rendering".
      total: the number of units of the whole task, if it is known.
      unit: plural noun of what is counted, or "B" for bytes.
      done: the number of units that are done already.
      leave: whether the bar remains at the end.

    Yields:
      The task, to be advanced.
    """
    running = Task(description, total, unit, done, leave)
    _heartbeat.begin(running)
    try:
        yield running
    finally:
        _heartbeat.end(running)
        if running.bar is not None:
            running.bar.close()


def track(items: Sequence[T], description: str, unit: str) -> Iterator[T]:
    """Yield the items, as a task of which each item is one unit; see `task`."""
    with task(description, len(items), unit) as running:
        for item in items:
            yield item
            running.advance()
