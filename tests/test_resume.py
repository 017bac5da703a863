"""A run that is killed and resumed is bit-identical to an uninterrupted run."""

import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from running import (
    HERE,
    STEPS,
    assert_same_run,
    end,
    finish_here,
    kill,
    saved,
    start,
    steps,
    wait_for,
)


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("reference") / "run"
    finish_here(workdir)
    return workdir


def test_resume_after_a_kill_during_a_save_and_one_at_a_random_time(tmp_path, reference):
    run = start(tmp_path, "--config.checkpoint.every=1", **HERE)

    def saving() -> bool:
        names = saved(tmp_path)
        return any("tmp" in n for n in names) and any(n.isdigit() for n in names)

    wait_for(saving, run)
    kill(run)
    incomplete = [name for name in saved(tmp_path) if "tmp" in name]
    assert incomplete
    run, before = start(tmp_path, **HERE), set(saved(tmp_path))
    wait_for(lambda: bool(set(saved(tmp_path)) - before), run)
    time.sleep(random.Random(0).uniform(0, 0.2))
    assert run[0].poll() is None
    kill(run)
    assert not {*incomplete} & {*saved(tmp_path)}  # deleted
    finish_here(tmp_path)
    assert not any("tmp" in name for name in saved(tmp_path))
    assert_same_run(tmp_path, reference)


def test_signals_save_and_exit(tmp_path, reference, capsys):
    options = ("--config.checkpoint.every=1000",)  # the only saves are those of the signals
    file = tmp_path / "metrics.jsonl"
    stops: list[int] = []

    def written() -> int:
        return file.read_text().count("\n") if file.exists() else 0

    for number, more in ((signal.SIGINT, 0), (signal.SIGTERM, 2)):  # 0: before the first step
        before, run = written(), start(tmp_path, *options, **HERE)
        wait_for(lambda before=before, more=more: written() > before + more, run)
        run[0].send_signal(number)
        (log,) = end(run)
        assert run[0].returncode == 0 and "saving, then stopping" in log, log
        assert not stops or f"from step {stops[-1]} of" in log
        stops.append(int(re.search(r"stopped at step (\d+)", log).group(1)))
        assert steps(tmp_path) == sorted({*stops}) and stops[-1] < STEPS
    finish_here(tmp_path, *options)
    assert f"from step {stops[-1]} of" in capsys.readouterr().err
    assert_same_run(tmp_path, reference)


def test_resume_from_the_previous_checkpoint_if_the_newest_is_damaged(tmp_path, reference, capsys):
    shutil.copytree(reference, tmp_path, dirs_exist_ok=True)
    previous, newest = steps(tmp_path)[-2:]
    for file in (tmp_path / "checkpoints" / str(newest)).rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            file.write_bytes(file.read_bytes()[:-500])
    finish_here(tmp_path)
    log = capsys.readouterr().err
    assert f"checkpoint {newest} is damaged" in log and f"from step {previous} of" in log
    assert_same_run(tmp_path, reference)
