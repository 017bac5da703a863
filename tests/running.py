"""Runs of configs/debug.py in subprocesses, and comparison of their results."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict
from tiny import run as run_here

from configs import debug
from contextssl_jax.experiment import build_experiment
from contextssl_jax.run.checkpoint import load_checkpoint

STEPS = 45
MODEL = {"model.transformer.blocks": 1}  # most of the time of these short runs is tracing
OPTIONS = (
    f"--config.train.steps={STEPS}",
    "--config.checkpoint.every=7",  # not a multiple of the 5 steps that a log line averages
    "--config.monitor.every=15",
    "--config.monitor.fit_views=20",
    "--config.monitor.test_views=10",
    "--config.log.tensorboard=False",
    *(f"--config.{name}={value}" for name, value in MODEL.items()),
)
# For bits that are those of `finish_here`, with as many devices as this process has.
HERE = {"devices": 4, "parallel": "jit"}
HANGING = 600  # seconds without the expected event, on any machine under any load
TIMES = ("step_seconds", "data_wait", "views_per_second")


def start(
    workdir: Path,
    *options: str,
    processes: int = 1,
    devices: int = 1,
    parallel: str = "auto",
    limits: Sequence[str] = (),
) -> list[subprocess.Popen]:
    """Start a run.

    Args:
      workdir: the workdir of the run.
      *options: arguments of the command.
      processes: number of processes.
      devices: number of CPU devices of each process.
      parallel: `train.parallel`.
      limits: command that runs the command, to limit its resources.
    """
    command = [*limits, sys.executable, "-m", "contextssl_jax.main", "--config=configs/debug.py"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    environment |= {"JAX_NUM_CPU_DEVICES": str(devices)}
    if processes > 1:
        environment |= {"JAX_NUM_PROCESSES": str(processes)}
        environment |= {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}"}
    return [
        subprocess.Popen(
            [
                *command,
                *OPTIONS,
                f"--config.train.parallel={parallel}",
                *options,
                f"--workdir={workdir}",
            ],
            env=environment | ({"JAX_PROCESS_ID": str(i)} if processes > 1 else {}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(processes)
    ]


def free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def end(run: Sequence[subprocess.Popen]) -> list[str]:
    """Wait for all processes, and return the standard error of each.

    Raises:
      TimeoutError: a process hangs. The message has the stack traces of all processes.
    """
    try:
        return [process.communicate(timeout=HANGING)[1] for process in run]
    except subprocess.TimeoutExpired:
        raise abort(run) from None


def finish(workdir: Path, *options: str, processes: int = 1, devices: int = 1) -> str:
    """Run to completion, check the exit statuses, and return the standard error of process 0."""
    run = start(workdir, *options, processes=processes, devices=devices)
    logs = end(run)
    assert [process.returncode for process in run] == [0] * processes, logs
    return logs[0]


def finish_here(workdir: Path, *options: str, parallel: str = "jit") -> None:
    """Run to completion in this process, which takes less time than one of its own.

    Args:
      workdir: the workdir of the run.
      *options: arguments of the command.
      parallel: "jit" for one device, otherwise all devices of this process.
    """
    mode = f"--config.train.parallel={parallel}"
    assert (
        run_here("--config=configs/debug.py", *OPTIONS, *options, mode, f"--workdir={workdir}") == 0
    )


def abort(run: Sequence[subprocess.Popen]) -> TimeoutError:
    """End the processes that hang, and return the error to raise, with their stack traces."""
    for process in run:
        process.send_signal(signal.SIGABRT)  # handled by Python's faulthandler
    logs = "\n\n".join(process.communicate()[1] for process in run)
    return TimeoutError(f"no event in {HANGING} s\n\n{logs}")


def kill(run: Sequence[subprocess.Popen]) -> None:
    for process in run:
        process.kill()
    end(run)


def wait_for(condition: Callable[[], bool], run: Sequence[subprocess.Popen]) -> None:
    """Wait until the condition holds or a process exits.

    Raises:
      TimeoutError: the processes hang. The message has the stack traces of all processes.
    """
    deadline = time.monotonic() + HANGING
    while not condition() and all(process.poll() is None for process in run):
        if time.monotonic() > deadline:
            raise abort(run)
        time.sleep(0.005)


def saved(workdir: Path) -> list[str]:
    folder = workdir / "checkpoints"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def steps(workdir: Path) -> list[int]:
    return sorted(int(name) for name in saved(workdir) if name.isdigit())


def lines(workdir: Path) -> list[dict]:
    """Return the lines of metrics.jsonl without the times."""
    parsed = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in parsed]


def state_at(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """Return the complete state of a checkpoint, by name."""
    config: ConfigDict = debug.get_config()
    config.train.parallel = "jit"
    config.update_from_flattened_dict(MODEL)
    template = build_experiment(config).template()
    parts = {name: getattr(template, name) for name in ("step", "params", "batch_stats")}
    parts["opt_state"] = template.opt_state
    state = load_checkpoint(epath.Path(workdir), parts, step).state
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def assert_same_run(workdir: Path, reference: Path, step: int = STEPS) -> None:
    """Assert that the states of a step and all log lines are bit-identical."""
    expected, got = state_at(reference, step), state_at(workdir, step)
    assert expected.keys() == got.keys()
    for name, leaf in expected.items():
        np.testing.assert_array_equal(got[name], leaf, err_msg=name)
    assert lines(workdir) == lines(reference)


def assert_close_run(workdir: Path, reference: Path, step: int, rtol: float = 1e-4) -> None:
    """Assert that states and log lines are equal up to the order of floating-point sums."""
    expected, got = state_at(reference, step), state_at(workdir, step)
    for name, leaf in expected.items():
        other = got[name]
        if "qkv" in name and leaf.ndim == 1:
            # The softmax is invariant to the bias of the keys, so its gradient is rounding error,
            # which Adam scales up.
            leaf, other = (
                np.delete(x, np.s_[len(x) // 3 : 2 * len(x) // 3]) for x in (leaf, other)
            )
        np.testing.assert_allclose(
            other, leaf, rtol=rtol, atol=rtol * np.abs(leaf).max(initial=1e-6), err_msg=name
        )
    for one, other in zip(lines(workdir), lines(reference), strict=True):
        assert one.keys() == other.keys()
        for name, value in other.items():
            np.testing.assert_allclose(one[name], value, rtol=50 * rtol, atol=0.02, err_msg=name)
