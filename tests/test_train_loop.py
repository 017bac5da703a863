"""The training loop does not let the devices wait: no implicit transfers, metrics one step late."""

import contextlib
import json

import jax
import pytest
from tiny import QUICK, run

from contextssl_jax import train
from contextssl_jax.run.metric_writer import MetricWindow, MetricWriter


@pytest.fixture
def guarded(monkeypatch):
    """Let a run raise on transfers that the code does not ask for, from its first batch on."""
    stack = contextlib.ExitStack()
    read_batches = train.read_batches

    def start(*arguments):
        stack.enter_context(jax.transfer_guard("disallow"))
        return read_batches(*arguments)

    monkeypatch.setattr(train, "read_batches", start)
    yield
    stack.close()


def test_lines_are_written_a_step_late_and_all_transfers_are_explicit(
    guarded, tmp_path, monkeypatch
):
    dispatched: list[int] = []
    written: list[tuple[int, int]] = []  # step of a line, and the last step dispatched before it
    add, write = MetricWindow.add, MetricWriter.write_metrics

    def record_step(self, step, *arguments):
        dispatched.append(step)
        add(self, step, *arguments)

    def record_line(self, step, means):
        written.append((step, dispatched[-1]))
        write(self, step, means)

    monkeypatch.setattr(MetricWindow, "add", record_step)
    monkeypatch.setattr(MetricWriter, "write_metrics", record_line)
    options = ("--config.log.every=1", "--config.checkpoint.every=3", f"--workdir={tmp_path}")
    assert run(*QUICK, *options) == 0
    # Before a save, and at the end, all lines are written.
    assert written == [(1, 2), (2, 3), (3, 3), (4, 4)]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]


def test_a_trace_of_some_steps_is_written(tmp_path, capsys):
    assert run(*QUICK, "--profile=2:3", f"--workdir={tmp_path}") == 0
    assert "trace of steps 2 to 3" in capsys.readouterr().err
    (file,) = (tmp_path / "profile").rglob("*.xplane.pb")
    assert b"train" in file.read_bytes()


@pytest.mark.parametrize("steps", ["3", "0:2", "4:3", "a:b", ":", "1:2:3"])
def test_invalid_steps_of_a_trace_are_one_line(steps, tmp_path, capsys):
    assert run(*QUICK, f"--profile={steps}", f"--workdir={tmp_path / 'run'}") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --profile: must be the first and the last step")
    assert not (tmp_path / "run").exists()
