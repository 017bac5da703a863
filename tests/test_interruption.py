"""A signal during the monitor or a report: the run saves and exits, and the next start goes on."""

import dataclasses
import json
import os
import signal

import jax
import numpy as np
import pytest
from etils import epath
from test_method_runs import SIE, state_of
from tiny import run

from contextssl_jax import progress
from contextssl_jax.distributed import processes
from contextssl_jax.distributed.processes import Interrupted, interrupter, stop_signals
from contextssl_jax.evaluation import monitor
from contextssl_jax.evaluation.evaluators import EVALUATORS
from contextssl_jax.evaluation.reader import ForwardPasses
from contextssl_jax.run.metric_writer import _remove_later_lines
from contextssl_jax.storage.paths import resolve_path
from launch.finished import is_finished

OPTIONS = (*SIE, "--config.monitor.every=2", "--config.monitor.fit_views=20",
           "--config.monitor.test_views=10", "--config.eval.every=2",
           "--config.checkpoint.every=100")  # fmt: skip
TIMES = ("step_seconds", "data_wait", "views_per_second")


def lines(workdir) -> list[dict]:
    read = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in read]


def report(workdir, step: int) -> dict:
    made = json.loads((workdir / "eval" / str(step) / "report.json").read_text())
    del made["provenance"]["seconds"]
    return made


def sending(function, calls: list, at: int):
    """Return the function, of which one call sends SIGTERM to this process."""

    def send(*arguments):
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGTERM)
        calls.append(1)
        return function(*arguments)

    return send


def test_a_report_and_a_monitor_are_left_and_made_by_the_next_start(
    tmp_path, capsys, monkeypatch, undisturbed
):
    """The report of step 2, which is not to be saved yet; and the monitor of the last step, 4."""
    arguments = (*OPTIONS, f"--workdir={tmp_path}")
    erasure, retrieval = EVALUATORS["erasure"], EVALUATORS["retrieval"]
    called: list[int] = []
    with monkeypatch.context() as patch:
        values = sending(erasure.evaluate, [], 0)
        patch.setitem(EVALUATORS, "erasure", dataclasses.replace(erasure, evaluate=values))
        later = sending(retrieval.evaluate, called, -1)
        patch.setitem(EVALUATORS, "retrieval", dataclasses.replace(retrieval, evaluate=later))
        assert run(*arguments) == 0
    assert "stopped at step 2 of 4" in capsys.readouterr().err and not called
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["2"]
    assert not (tmp_path / "eval").exists()

    with monkeypatch.context() as patch:
        patch.setattr(monitor, "EncodedContexts", sending(monitor.EncodedContexts, [], 0))
        assert run(*arguments) == 0
    assert "stopped at step 4 of 4" in capsys.readouterr().err
    assert report(tmp_path, 2) == report(undisturbed, 2)
    assert not (tmp_path / "eval" / "4").exists()
    assert not is_finished(epath.Path(tmp_path))
    monitored = [line["step"] for line in lines(tmp_path) if "monitor/r2/crop/crop/0" in line]
    assert monitored == [0, 2]

    assert run(*arguments) == 0
    assert "done at step 4 of 4" in capsys.readouterr().err
    assert is_finished(epath.Path(tmp_path))
    assert report(tmp_path, 4) == report(undisturbed, 4)
    assert lines(tmp_path) == lines(undisturbed)
    expected, found = state_of(undisturbed, 4), state_of(tmp_path, 4)
    for name, leaf in expected.items():
        np.testing.assert_array_equal(found[name], leaf, err_msg=name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that is not interrupted, and the names of its tasks in the order of their starts."""
    workdir, began = tmp_path_factory.mktemp("undisturbed"), []
    begin = progress._Heartbeat.begin

    def record(self, running):
        began.append(str(running).partition(":")[0])
        begin(self, running)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress._Heartbeat, "begin", record)
        assert run(*OPTIONS, f"--workdir={workdir}") == 0
    return workdir, began


@pytest.fixture
def undisturbed(whole):
    return whole[0]


def test_every_phase_of_a_run_is_a_task(whole):
    """The parts that can take minutes, by what a line would say."""
    _, began = whole
    assert began[0] == "working"
    assert {
        *("preparing the data set", "initializing the model", "training", "monitor", "encoding"),
        *("compiling the train step", "evaluation", "embedding", "writing the report"),
        *("reading the checkpoint", "saving the checkpoint"),
    } <= set(began)


def test_several_processes_stop_at_the_same_call(monkeypatch):
    """The runtime compares counters, and returns True for one of them only."""
    counters: list[int] = []

    def reached(counter: int) -> bool:
        counters.append(counter)
        return len(counters) == 3

    monkeypatch.setattr(processes.jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes.multihost_utils, "reached_preemption_sync_point", reached)
    with stop_signals("stopping") as should_stop:
        check_stop = interrupter(should_stop)
        check_stop()
        assert not should_stop()
        for _ in range(2):
            with pytest.raises(Interrupted):
                check_stop()
        assert should_stop()
    with stop_signals("stopping") as should_stop:
        assert not should_stop()
    assert counters == list(range(counters[0], counters[0] + 4))


def test_passes_stop_before_the_next_batch():
    passes, batches = ForwardPasses.__new__(ForwardPasses), []
    passes._batch = 2
    interrupted = passes.interruptible(interrupter(lambda: len(batches) == 3))
    with pytest.raises(Interrupted):
        interrupted._run(lambda rows: batches.append(rows) or jax.numpy.zeros((2, 1)), 20, "test")
    assert len(batches) == 3 and interrupted is not passes


def test_lines_of_a_monitor_that_runs_again_are_removed(tmp_path):
    file = tmp_path / "metrics.jsonl"
    kept = ['{"step": 2, "monitor/knn": 1}', '{"step": 2, "loss": 1}', '{"step": 4, "loss": 1}']
    removed = ['{"step": 4, "monitor/knn": 1}', '{"step": 6, "loss": 1}']
    file.write_text("\n".join([*kept, *removed]) + "\n")
    _remove_later_lines(resolve_path(str(file), "test"), 4, 2)
    assert file.read_text().splitlines() == kept
