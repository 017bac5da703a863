"""A run that is killed, wherever, ends bit-identical to one that never stopped."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from contextssl_jax.checkpoint import Checkpoints
from contextssl_jax.experiment import build_experiment

STEPS = 60
OPTIONS = (
    f"--config.train.steps={STEPS}",
    "--config.checkpoint.every=7",  # saves fall between lines of the log, which average 5 steps
    "--config.monitor.every=20",
    "--config.log.tensorboard=False",
)
TIMES = ("step_seconds", "data_wait", "views_per_second")


def start(workdir: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "contextssl_jax.main", "--config=configs/debug.py"]
    environment = os.environ | {"XLA_FLAGS": "", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [*command, *OPTIONS, *options, f"--workdir={workdir}"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(workdir: Path, *options: str) -> str:
    process = start(workdir, *options)
    log = process.communicate(timeout=300)[1]
    assert process.returncode == 0, log
    return log


def wait_for(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def saved(workdir: Path) -> list[str]:
    folder = workdir / "checkpoints"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def lines(workdir: Path) -> list[dict]:
    """What was logged, less the times."""
    read = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in read]


def final_state(workdir: Path, config) -> dict[str, np.ndarray]:
    config.train.steps = STEPS
    import jax

    with Checkpoints(epath.Path(workdir), 2) as checkpoints:
        found = checkpoints.restore(build_experiment(config).template())
    assert found is not None and found.step == STEPS
    leaves = jax.tree_util.tree_leaves_with_path(found.state)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def assert_same_run(workdir: Path, reference: Path, config) -> None:
    expected, got = final_state(reference, config), final_state(workdir, config)
    for name, leaf in expected.items():
        np.testing.assert_array_equal(got[name], leaf, err_msg=name)
    assert lines(workdir) == lines(reference)


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("reference") / "run"
    finish(workdir)
    return workdir


def test_killed_at_random_moments(tmp_path, reference, config):
    rng, kills = random.Random(0), 0
    for _ in range(2):
        process = start(tmp_path)
        seen = saved(tmp_path)
        wait_for(lambda seen=seen: saved(tmp_path) != seen, process)
        time.sleep(rng.uniform(0, 0.2))
        kills += process.poll() is None
        process.kill()
        process.communicate()
    assert kills
    finish(tmp_path)
    assert_same_run(tmp_path, reference, config)


def test_killed_during_a_save(tmp_path, reference, config):
    process = start(tmp_path, "--config.checkpoint.every=1")

    def saving() -> bool:
        names = saved(tmp_path)
        return any("tmp" in n for n in names) and any(n.isdigit() for n in names)

    wait_for(saving, process)
    process.kill()
    process.communicate()
    assert any("tmp" in name for name in saved(tmp_path))  # the save was cut short
    finish(tmp_path)
    assert_same_run(tmp_path, reference, config)


@pytest.mark.parametrize("number, line", [(signal.SIGTERM, 4), (signal.SIGINT, 0)])
def test_a_signal_saves_and_ends_cleanly(tmp_path, reference, config, number, line):
    options = ("--config.checkpoint.every=1000",)  # so what is saved is saved by the signal
    process = start(tmp_path, *options)
    file = tmp_path / "metrics.jsonl"  # its first line comes before the first step
    wait_for(lambda: file.exists() and file.read_text().count("\n") > line, process)
    process.send_signal(number)
    log = process.communicate(timeout=60)[1]
    assert process.returncode == 0 and "saving, then stopping" in log, log
    step = int(re.search(r"stopped at step (\d+)", log).group(1))
    assert saved(tmp_path) == [str(step)] and step < STEPS
    assert f"from step {step} of" in finish(tmp_path, *options)
    assert_same_run(tmp_path, reference, config)


def test_a_damaged_newest_checkpoint_costs_its_steps_alone(tmp_path, reference, config):
    process = start(tmp_path)
    wait_for(lambda: len([n for n in saved(tmp_path) if n.isdigit()]) == 2, process)
    process.kill()
    process.communicate()
    newest = max((n for n in saved(tmp_path) if n.isdigit()), key=int)
    folder = tmp_path / "checkpoints" / newest
    for file in folder.rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            file.write_bytes(file.read_bytes()[:-500])
    assert f"checkpoint {newest} is damaged" in finish(tmp_path)
    assert_same_run(tmp_path, reference, config)
