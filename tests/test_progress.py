"""No task is silent for long, and a short one logs nothing."""

import io
import logging
import sys
import threading

import pytest
from running import HANGING

from contextssl_jax import progress
from contextssl_jax.progress import task, track


class Lines(logging.Handler):
    """Collects the package's log lines; `wait` returns the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._arrived = threading.Semaphore(0)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self._arrived.release()

    def wait(self) -> str:
        assert self._arrived.acquire(timeout=HANGING)
        return self.lines[-1]


@pytest.fixture
def lines(monkeypatch, caplog):
    caplog.set_level("INFO", "contextssl_jax")
    handler = Lines()
    logging.getLogger("contextssl_jax").addHandler(handler)
    yield handler
    logging.getLogger("contextssl_jax").removeHandler(handler)


def test_a_silent_task_logs_lines_of_the_innermost_task(lines, monkeypatch):
    monkeypatch.setattr(progress, "_INTERVAL", 0.01)
    with task("outer"):
        assert lines.wait().startswith("outer, 0:00:0")
        with task("inner", 1200, "batches", done=3) as inner:
            while not lines.wait().startswith("inner: 3 of 1,200 batches, 0:00:0"):
                pass
            inner.advance(2)
            while not lines.wait().startswith("inner: 5 of 1,200 batches, "):
                pass
        while not lines.wait().startswith("outer"):
            pass
    count = len(lines.lines)
    assert not any(isinstance(h, progress._Heartbeat) for h in logging.getLogger().handlers)
    assert len(lines.lines) == count


def test_a_short_task_and_one_that_logs_itself_add_no_lines(lines, monkeypatch):
    monkeypatch.setattr(progress, "_INTERVAL", 600.0)
    with task("short"):
        assert list(track("abc", "letters", "letters")) == ["a", "b", "c"]
    assert lines.lines == []
    # A line of the program postpones that of the task by the whole interval.
    with task("long"):
        before = progress._heartbeat._last_line
        logging.getLogger("contextssl_jax.train").info("step 1")
        assert progress._heartbeat._last_line > before
    assert lines.lines == ["step 1"]


def test_a_terminal_has_a_bar(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", terminal)
    with task("rendering", 4, "batches") as rendering:
        rendering.advance(4)
        assert rendering.bar.n == 4
    assert "rendering" in terminal.getvalue()
    with task("compiling") as compiling:
        assert compiling.bar is None


def test_an_exception_ends_the_tasks():
    with pytest.raises(KeyError), task("outer"):
        for _ in track("ab", "inner", "letters"):
            raise KeyError
    assert progress._heartbeat._tasks == []
