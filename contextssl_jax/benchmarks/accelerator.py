"""Measure a config on the accelerator of this machine, train for the time that is left, write JSON.

    python -m contextssl_jax.benchmarks.accelerator --config=cifar10_crop_blur --minutes=25 \\
        --out=cifar10_crop_blur_h100.json --workdir=runs/accelerator

In this order: the train step with its share of the chip's peak, the memory, the data pipeline, a
save, a report of the untrained model, and a run of the config that stops when the minutes are over
or its steps are done; the same command resumes it. The file is written after each part, and a part
that fails is recorded with its error. --estimate=FILE adds the milliseconds that
contextssl_jax.benchmarks.compiled has estimated for the same config.
"""

import json
import logging
import os
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from contextssl_jax.benchmarks.evaluation import measure_evaluation
from contextssl_jax.benchmarks.pipeline import measure_pipeline
from contextssl_jax.benchmarks.saving import measure_saving
from contextssl_jax.benchmarks.step import measure_step
from contextssl_jax.config import Command, parse_command_line
from contextssl_jax.errors import Parser, UserError
from contextssl_jax.experiment import Experiment, build_experiment
from contextssl_jax.planning.flops import count_flops
from contextssl_jax.planning.hardware import CHIPS
from contextssl_jax.run.metadata import collect_metadata
from contextssl_jax.storage.files import json_output
from contextssl_jax.storage.paths import resolve_path
from contextssl_jax.storage.safe_json import read_json, read_json_lines
from contextssl_jax.train import train

_LEAST_TRAINING = 60.0  # seconds, without which a run is not started
_SIGTERM_INTERVAL = 2.0  # seconds


def main(argv: Sequence[str]) -> int:
    """Measure the command line's config on this machine."""
    began = time.monotonic()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    logging.getLogger("contextssl_jax").setLevel(logging.INFO)
    try:
        parser = Parser(prog="contextssl_jax.benchmarks.accelerator", allow_abbrev=False)
        parser.add_argument("--minutes", type=float, default=25.0)
        parser.add_argument("--estimate")
        options, rest = parser.parse_known_args(argv[1:])
        command = parse_command_line([argv[0], *rest], ("train",))
        estimate = _read_estimate(options.estimate)
        experiment = build_experiment(command.config)
        with json_output(command.out) as write:
            deadline = began + 60 * options.minutes
            results = _measure(command, experiment, estimate, deadline, write)
        print(json.dumps(results, indent=2))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 1 if any("error" in part for part in results["parts"].values()) else 0


def _measure(
    command: Command,
    experiment: Experiment,
    estimate: Any,
    deadline: float,
    write: Callable[[Any], None],
) -> dict[str, Any]:
    """Return the results of all parts, which are written after each."""
    config = command.config
    results: dict[str, Any] = {
        "machine": collect_metadata(config, command.argv, command.deterministic),
        "estimate": estimate,
        "parts": {},
    }
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "step": partial(_measure_step, config, experiment),
        "pipeline": partial(measure_pipeline, config, experiment),
        "saving": partial(measure_saving, config, experiment),
        "evaluation": partial(measure_evaluation, config, experiment),
        "training": partial(_train_until, command, deadline),
    }
    for name, measure in parts.items():
        start = time.monotonic()
        print(f"{name}: {max(deadline - start, 0) / 60:.1f} minutes left", file=sys.stderr)
        try:
            result = measure()
        except Exception as error:  # the time on such a machine is short: measure the other parts
            result = {"error": f"{type(error).__name__}: {error}"}
        results["parts"][name] = result | {"wall_seconds": round(time.monotonic() - start, 1)}
        write(results)
    return results


def _measure_step(config: ConfigDict, experiment: Experiment) -> dict[str, Any]:
    """Return the time of a step, its memory, and its share of the peak rate of the devices."""
    result = measure_step(config, experiment, steps=50)
    state, batch = experiment.init_shapes(), jax.eval_shape(lambda: experiment.batches[0])
    constants = jax.eval_shape(lambda: (experiment.key_data, experiment.images))
    if experiment.parallel.mode == "jit":
        traced = experiment.step.trace(state, batch, *constants)  # type: ignore[attr-defined]
        flops = count_flops(traced.jaxpr.jaxpr, jax.default_backend()).total()
        result["flops"] = flops
        if peak := _peak(config):
            result["share_of_peak"] = round(flops / result["seconds_per_step"] / peak, 4)
    result["memory_stats"] = jax.devices()[0].memory_stats() or {}
    return result


def _peak(config: ConfigDict) -> float | None:
    """Return the peak rate of products of this machine's chip in FLOP/s, if it is in the table."""
    kind = jax.devices()[0].device_kind
    for chip in CHIPS:
        if all(word in kind for word in chip.name.removesuffix(" SXM").split()):
            return chip.peak(config.model.dtype, config.model.precision)
    return None


def _train_until(command: Command, deadline: float) -> dict[str, Any]:
    """Train the config until a time, as by SIGTERM then, and return figures of its log lines.

    Args:
      command: the config and the workdir, which may hold an earlier part of the run.
      deadline: `time.monotonic` of the stop.
    """
    left = deadline - time.monotonic()
    if left < _LEAST_TRAINING:
        return {"skipped": f"{max(left, 0):.0f} seconds left"}
    metadata = partial(collect_metadata, command.config, command.argv, command.deterministic)
    with _sigterm_at(deadline):
        train(command.config, command.workdir, metadata)
    return _summarize(resolve_path(command.workdir, "--workdir"))


def _summarize(workdir: epath.Path) -> dict[str, Any]:
    """Return the last line of metrics of a run, and medians of its speed."""
    lines = [line for line in read_json_lines(workdir / "metrics.jsonl") if "loss" in line]
    timed = [line for line in lines if "views_per_second" in line]
    result: dict[str, Any] = {"last_line": lines[-1] if lines else None}
    for name in ("views_per_second", "step_seconds", "data_wait"):
        if timed:
            result[f"median_{name}"] = statistics.median(line[name] for line in timed)
    return result


@contextmanager
def _sigterm_at(deadline: float) -> Iterator[None]:
    """Send SIGTERM to this process from a time on, until the context ends.

    It is repeated, since training handles it in its loop only; elsewhere it has no effect.
    """
    ended = threading.Event()

    def send() -> None:
        while not ended.wait(max(deadline - time.monotonic(), _SIGTERM_INTERVAL)):
            os.kill(os.getpid(), signal.SIGTERM)

    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        signal.signal(signal.SIGTERM, previous)


def _read_estimate(path: str | None) -> Any:
    """Return the contents of --estimate=FILE; None without it."""
    if path is None:
        return None
    try:
        return read_json(resolve_path(path, "--estimate"))
    except (OSError, ValueError) as error:
        raise UserError(f"--estimate: cannot read {path} ({error}).") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv))
