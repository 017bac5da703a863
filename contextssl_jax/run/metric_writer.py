"""Output of metrics: progress bar, console, metrics.jsonl and dashboards."""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import jax
from etils import epath

from contextssl_jax.errors import UserError
from contextssl_jax.progress import task
from contextssl_jax.run.dashboard import Dashboard, ReportSummary
from contextssl_jax.run.finite import NonFiniteError
from contextssl_jax.storage.files import append_text, write_atomic
from contextssl_jax.storage.paths import error_reason, io_errors
from contextssl_jax.storage.safe_json import parse_json

_log = logging.getLogger(__name__)
_MIN_MEASURED = 10  # steps after which the remaining time is shown


class MetricWindow:
    """The metrics of the steps since the last log line, fetched from the device in bulk.

    They are saved with checkpoints, so that the first log line after a resume averages the same
    steps as in an uninterrupted run.
    """

    def __init__(self, steps: list[dict[str, float]]) -> None:
        """Start a window with the metrics of earlier steps, from `fetch`."""
        self._host = list(steps)
        self._device: list[tuple[int, Mapping[str, jax.Array], dict[str, float]]] = []

    def add(
        self, step: int, metrics: Mapping[str, jax.Array], start: float, data_wait: float
    ) -> None:
        """Add a dispatched step, and wait for the previous one.

        The device therefore always has a queued step, and the host is at most one step ahead.

        Args:
          step: the number of the step, from 1.
          metrics: scalars on the device.
          start: `time.perf_counter` at the start of the step; NaN to exclude the step's time.
          data_wait: seconds that the step waited for its batch.
        """
        if self._device:
            jax.block_until_ready(self._device[-1][1])
        times = {"step_seconds": time.perf_counter() - start, "data_wait": data_wait}
        self._device.append((step, metrics, times))

    def fetch(self, last: int | None = None) -> list[dict[str, float]]:
        """Fetch the metrics from the device, and return those of all steps of the window.

        Args:
          last: the last step to fetch and return; None for the newest.

        Raises:
          NonFiniteError: the loss or the gradient of a step is not finite.
        """
        due = [entry for entry in self._device if last is None or entry[0] <= last]
        waits = len(due) == len(self._device) > 0  # for the newest step
        start = time.perf_counter()
        fetched = jax.device_get([metrics for _, metrics, _ in due])
        fetch_seconds = time.perf_counter() - start
        for (step, _, times), metrics in zip(due, fetched, strict=True):
            values = {name: float(value.reshape(-1)[0]) for name, value in metrics.items()}
            for name in ("loss", "gradient_norm"):
                if not math.isfinite(values[name]):
                    raise NonFiniteError(step, name, values[name])
            self._host.append(values | times)
        if waits:
            self._host[-1]["step_seconds"] += fetch_seconds
        del self._device[: len(due)]
        return list(self._host)  # a copy, since an asynchronous save may still use it

    def pop_means(self, last: int | None = None) -> dict[str, float]:
        """Return the mean of each metric over its non-NaN values, and remove the steps.

        Args:
          last: the last step to average and remove; None for the newest.

        Raises:
          NonFiniteError: the loss or the gradient of a step is not finite.
        """
        steps = self.fetch(last)
        self._host = []
        columns = {name: [step[name] for step in steps] for name in steps[0]}
        valid = {k: [v for v in column if not math.isnan(v)] for k, column in columns.items()}
        return {name: sum(column) / len(column) for name, column in valid.items() if column}


class MetricWriter:
    """Writes the metrics of a run. Writes nothing if `enabled` is False."""

    def __init__(
        self,
        workdir: epath.Path,
        *,
        start: int,
        monitored_step: int,
        resumed: bool,
        total_steps: int,
        views_per_step: int,
        dashboards: Sequence[Dashboard],
        enabled: bool,
    ) -> None:
        """Open the files of a run that starts or resumes at step `start`.

        Removes the lines of later steps from metrics.jsonl. A killed run has written them after its
        last checkpoint, and those steps are repeated.

        Args:
          workdir: the workdir of the run.
          start: number of steps that are already done.
          monitored_step: the last step whose monitor values are written; -1 for none.
          resumed: True if the run resumes from a checkpoint; if False, all lines are removed.
          total_steps: number of steps of the whole run.
          views_per_step: number of views in a global batch.
          dashboards: further outputs; they are closed with the writer.
          enabled: True on process 0 only.
        """
        self._enabled = enabled
        self._start, self._total_steps = start, total_steps
        self._views_per_step = views_per_step
        self._file = workdir / "metrics.jsonl"
        self._dashboards = dashboards
        self._failed: set[str] = set()
        self._stack = ExitStack()
        if enabled:
            self._file.touch()
            _remove_later_lines(self._file, start if resumed else -1, monitored_step)

    def __enter__(self) -> "MetricWriter":
        total = self._total_steps if self._enabled else None
        training = task("training", total, "steps", self._start, leave=True)
        self._progress = self._stack.enter_context(training)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()
        for dashboard in self._dashboards:
            dashboard.close(failed=exception[0] is not None)

    def advance(self) -> None:
        """Add a step to the progress."""
        self._progress.advance()

    def write_metrics(self, step: int, means: dict[str, float]) -> None:
        """Write the means, which include the loss, of a window that ends with the step."""
        shown = {"loss": f"{means['loss']:.3f}"}
        if accuracy := [value for name, value in means.items() if name.endswith("_accuracy")]:
            shown["accuracy"] = f"{accuracy[0]:.2f}"
        if "step_seconds" in means:
            means["views_per_second"] = self._views_per_step / means["step_seconds"]
            shown["views/s"] = f"{means['views_per_second']:,.0f}"
            left = self._total_steps - step
            if step - self._start >= _MIN_MEASURED or not left:
                remaining = math.ceil(left * means["step_seconds"])
                shown["remaining"] = str(timedelta(seconds=remaining))
        self._write(step, means)
        bar = self._progress.bar  # on a terminal; log lines otherwise, for example in a log file
        if bar is not None:
            shown.pop("remaining", None)  # the bar displays it itself
            bar.set_postfix(shown, refresh=False)
        elif self._enabled:
            line = "  ".join(f"{name} {value}" for name, value in shown.items())
            _log.info("step %d/%d  %s", step, self._total_steps, line)

    def write_monitor(self, step: int, values: dict[str, float]) -> None:
        """Write the monitor's kNN accuracy, and its R² by environment, group and context length."""
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
        context = f" after contexts of {' -> '.join(lengths)} tokens" if len(lengths) > 1 else ""
        _log.info("step %d, held-out data: R²%s%s", step, context, knn)
        for environment, groups in rows.items():
            line = "   ".join(f"{group} {' -> '.join(row)}" for group, row in groups.items())
            _log.info("  %-14s %s", f"{environment} context" if len(lengths) > 1 else "", line)
            if len(lengths) == 1:  # without a context, all environments have the same values
                break

    def write_report(self, step: int, summary: ReportSummary) -> None:
        """Write a report's values and pictures to the dashboards."""
        for dashboard in self._dashboards:
            summary.write(dashboard, step)

    def try_write(self, name: str, write: Callable[[], Any]) -> None:
        """Write an optional output. If that fails, log a warning once, and continue.

        Args:
          name: name of the output, for the warning.
          write: writes the output.
        """
        if not self._enabled:
            return
        try:
            write()
        except io_errors() as error:
            log = _log.debug if name in self._failed else _log.warning
            log("cannot write %s (%s); continuing without it", name, error)
            self._failed.add(name)

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        if self._enabled:
            try:
                append_text(self._file, json.dumps({"step": step, **values}) + "\n")
            except io_errors() as error:
                raise UserError(
                    f"{self._file}: cannot write ({error_reason(error)}). Free disk space or check"
                    " the permissions, then run the same command again to resume."
                ) from error
        for dashboard in self._dashboards:
            dashboard.write(step, values, time.time())


def _remove_later_lines(file: epath.Path, last_step: int, monitored_step: int) -> None:
    """Remove invalid lines from metrics.jsonl, and those that the run writes again.

    Args:
      file: metrics.jsonl.
      last_step: lines of later steps are removed.
      monitored_step: lines of the monitor of later steps are removed.
    """
    lines = file.read_bytes().decode(errors="replace").splitlines()
    kept = [
        line
        for line in lines
        if _parse_step(line) <= (monitored_step if '"monitor/' in line else last_step)
    ]
    if len(kept) < len(lines):
        removed = len(lines) - len(kept)
        _log.info("%s: removed %d lines of steps that are repeated", file.name, removed)
        write_atomic(file, "".join(line + "\n" for line in kept))


def _parse_step(line: str) -> float:
    try:
        return float(parse_json(line)["step"])
    except (ValueError, TypeError, KeyError, OverflowError):  # incomplete or invalid line
        return math.inf
