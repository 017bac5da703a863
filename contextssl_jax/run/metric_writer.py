"""What a run tells: a progress bar, lines on the console, metrics.jsonl, TensorBoard."""

import json
import logging
import math
import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import jax
from etils import epath
from tqdm import tqdm

from contextssl_jax.errors import UserError
from contextssl_jax.run.tensorboard import TensorBoardWriter
from contextssl_jax.storage.files import append_text, write_atomic
from contextssl_jax.storage.paths import error_reason, io_errors
from contextssl_jax.storage.safe_json import parse_json

_log = logging.getLogger(__name__)


class NonFiniteError(ArithmeticError):
    """A loss or a gradient is not a number; `step` is the first step that shows it."""

    def __init__(self, step: int, name: str, value: float) -> None:
        super().__init__(f"step {step}: {name} is {value}")
        self.step = step


class MetricWindow:
    """Metrics of the steps since the last line, fetched from the device in bulk.

    Its host part is saved with checkpoints, so that a line after a resume is the mean over the
    same steps as in a run that never stopped.
    """

    def __init__(self, steps: list[dict[str, float]]) -> None:
        """Starts with what an earlier part of the run had gathered; see `host`."""
        self._host = list(steps)
        self._device: list[tuple[int, Mapping[str, jax.Array], dict[str, float]]] = []

    def add(self, step: int, metrics: Mapping[str, jax.Array], began: float, wait: float) -> None:
        """Adds a step that was started, and waits for the one before it.

        So the device always has a next step, and the host is never further ahead than that.

        Args:
          step: its number, from 1.
          metrics: scalars on the device.
          began: when its making began, by `time.perf_counter`; NaN if its time is not to count.
          wait: for data, seconds.
        """
        if self._device:
            jax.block_until_ready(self._device[-1][1])
        times = {"step_seconds": time.perf_counter() - began, "data_wait": wait}
        self._device.append((step, metrics, times))

    def host(self) -> list[dict[str, float]]:
        """Fetches what is on the device; returns all steps of the window.

        Raises:
          NonFiniteError: a step's loss or gradient is not finite.
        """
        began = time.perf_counter()
        fetched = jax.device_get([metrics for _, metrics, _ in self._device])
        waited = time.perf_counter() - began
        for (step, _, times), metrics in zip(self._device, fetched, strict=True):
            values = {name: float(value.reshape(-1)[0]) for name, value in metrics.items()}
            for name in ("loss", "gradient_norm"):
                if not math.isfinite(values[name]):
                    raise NonFiniteError(step, name, values[name])
            self._host.append(values | times)
        if self._device:  # the wait was for the newest step
            self._host[-1]["step_seconds"] += waited
        self._device = []
        return list(self._host)  # a copy: a save may still be writing it when the next steps come

    def close(self) -> dict[str, float]:
        """Returns each metric's mean over the steps that tell it, and empties the window."""
        steps = self.host()
        self._host = []
        columns = {name: [step[name] for step in steps] for name in steps[0]}
        told = {k: [v for v in column if not math.isnan(v)] for k, column in columns.items()}
        return {name: sum(column) / len(column) for name, column in told.items() if column}


class MetricWriter:
    """Writes what a run tells; with `enabled` False (not process 0), nothing at all."""

    def __init__(
        self,
        workdir: epath.Path,
        *,
        start: int,
        resumed: bool,
        total: int,
        views: int,
        tensorboard: bool,
        enabled: bool,
    ) -> None:
        """Opens the files of a run that goes on after step `start` of `total`.

        Lines of later steps, which a run that was killed had written after its last checkpoint,
        are taken out of metrics.jsonl: those steps are taken again.

        Args:
          workdir: of the run.
          start: steps taken.
          resumed: from a checkpoint, so that lines up to `start` stay; else none does.
          total: steps of the whole run.
          views: of a step's global batch.
          tensorboard: write event files too.
          enabled: write at all.
        """
        self._enabled, self._total, self._views = enabled, total, views
        self._file = workdir / "metrics.jsonl"
        self._board: TensorBoardWriter | None = None
        self._failed: set[str] = set()
        # On a terminal a bar; elsewhere, such as in a log file, lines alone.
        plain = not (enabled and sys.stderr.isatty())
        self._bar = tqdm(total=total, initial=start, unit="step", dynamic_ncols=True, disable=plain)
        if enabled:
            self._file.touch()
            _trim(self._file, start if resumed else -1)
            if tensorboard:
                self._board = TensorBoardWriter(workdir / "tensorboard", start)

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()
        if self._board:
            self._board.close()

    def advance(self) -> None:
        """Moves the bar by one step."""
        self._bar.update()

    def metrics(self, step: int, means: dict[str, float]) -> None:
        """Writes the means of a window that ends with the step; one of them is the loss."""
        shown = {"loss": f"{means['loss']:.3f}"}
        if accuracy := [value for name, value in means.items() if name.endswith("_accuracy")]:
            shown["accuracy"] = f"{accuracy[0]:.2f}"
        if "step_seconds" in means:
            means["views_per_second"] = self._views / means["step_seconds"]
            left = (self._total - step) * means["step_seconds"]
            shown |= {
                "views/s": f"{means['views_per_second']:,.0f}",
                "left": str(timedelta(seconds=round(left))),
            }
        self._write(step, means)
        if self._enabled and self._bar.disable:
            told = "  ".join(f"{name} {value}" for name, value in shown.items())
            _log.info("step %d/%d  %s", step, self._total, told)
        shown.pop("left", None)  # the bar says it itself
        self._bar.set_postfix(shown, refresh=False)

    def look(self, step: int, values: dict[str, float]) -> None:
        """Writes what the monitor saw: classes, and R² per environment and group by length."""
        self._write(step, {f"monitor/{name}": value for name, value in values.items()})
        if not self._enabled:
            return
        rows: dict[str, dict[str, list[str]]] = {}
        lengths: dict[str, None] = {}
        for name, value in values.items():
            if name.startswith("r2/"):
                _, environment, group, length = name.split("/")
                rows.setdefault(environment, {}).setdefault(group, []).append(f"{value:5.2f}")
                lengths[length] = None
        knn = f"; kNN accuracy {values['knn']:.3f}" if "knn" in values else ""
        _log.info("held out, step %d: R² after %s tokens%s", step, " -> ".join(lengths), knn)
        for environment, groups in rows.items():
            told = "   ".join(f"{group} {' -> '.join(row)}" for group, row in groups.items())
            _log.info("  %-14s %s", f"{environment} context" if len(lengths) > 1 else "", told)
            if len(lengths) == 1:  # without a context all environments are the same
                break

    def attempt(self, what: str, write: Callable[[], Any]) -> None:
        """Writes what a run can do without: if that fails, warns once, and the run goes on."""
        if not self._enabled:
            return
        try:
            write()
        except io_errors() as error:
            tell = _log.debug if what in self._failed else _log.warning
            tell("%s cannot be written (%s); going on without", what, error)
            self._failed.add(what)

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        if self._enabled:
            try:
                append_text(self._file, json.dumps({"step": step, **values}) + "\n")
            except io_errors() as error:
                raise UserError(
                    f"{self._file}: cannot be written ({error_reason(error)})"
                ) from error
        if self._board:
            self._board.write(step, values, time.time())


def _trim(file: epath.Path, last: int) -> None:
    """Takes the lines of steps after `last` out of a JSON-lines file."""
    lines = file.read_bytes().decode(errors="replace").splitlines()
    kept = [line for line in lines if _step_of(line) <= last]
    if len(kept) < len(lines):
        dropped = len(lines) - len(kept)
        _log.info("%s: took out %d lines of steps that are taken again", file.name, dropped)
        write_atomic(file, "".join(line + "\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return float(parse_json(line)["step"])
    # A kill cut the line short, or it is none of a run's.
    except (ValueError, TypeError, KeyError, OverflowError):
        return math.inf
