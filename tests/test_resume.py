"""A run that is killed and resumed is bit-identical to an uninterrupted run."""

import random
import re
import signal
import time
from pathlib import Path

import pytest
from running import STEPS, assert_same_run, end, finish, kill, saved, start, steps, wait_for


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("reference") / "run"
    finish(workdir)
    return workdir


def test_resume_after_kills_at_random_times(tmp_path, reference):
    rng, kills = random.Random(0), 0
    for _ in range(2):
        run = start(tmp_path)
        seen = saved(tmp_path)
        wait_for(lambda seen=seen: saved(tmp_path) != seen, run)
        time.sleep(rng.uniform(0, 0.2))
        kills += run[0].poll() is None
        kill(run)
    assert kills
    finish(tmp_path)
    assert_same_run(tmp_path, reference)


def test_resume_after_a_kill_during_a_save(tmp_path, reference):
    run = start(tmp_path, "--config.checkpoint.every=1")

    def saving() -> bool:
        names = saved(tmp_path)
        return any("tmp" in n for n in names) and any(n.isdigit() for n in names)

    wait_for(saving, run)
    kill(run)
    assert any("tmp" in name for name in saved(tmp_path))  # the save is incomplete
    finish(tmp_path)
    assert not any("tmp" in name for name in saved(tmp_path))  # and is deleted
    assert_same_run(tmp_path, reference)


@pytest.mark.parametrize("number, line", [(signal.SIGTERM, 4), (signal.SIGINT, 0)])
def test_signal_saves_and_exits(tmp_path, reference, number, line):
    options = ("--config.checkpoint.every=1000",)  # the only save is that of the signal
    run = start(tmp_path, *options)
    file = tmp_path / "metrics.jsonl"  # its first line is written before the first step
    wait_for(lambda: file.exists() and file.read_text().count("\n") > line, run)
    run[0].send_signal(number)
    (log,) = end(run)
    assert run[0].returncode == 0 and "saving, then stopping" in log, log
    step = int(re.search(r"stopped at step (\d+)", log).group(1))
    assert saved(tmp_path) == [str(step)] and step < STEPS
    assert f"from step {step} of" in finish(tmp_path, *options)
    assert_same_run(tmp_path, reference)


def test_resume_from_the_previous_checkpoint_if_the_newest_is_damaged(tmp_path, reference):
    run = start(tmp_path)
    wait_for(lambda: len(steps(tmp_path)) == 2, run)
    kill(run)
    newest = steps(tmp_path)[-1]
    for file in (tmp_path / "checkpoints" / str(newest)).rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            file.write_bytes(file.read_bytes()[:-500])
    assert f"checkpoint {newest} is damaged" in finish(tmp_path)
    assert_same_run(tmp_path, reference)
