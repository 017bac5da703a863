"""Multi-process runs: same results as a single process, and a common end."""

import json
import re
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from etils import epath
from running import (
    assert_close_run,
    assert_same_run,
    end,
    finish,
    finish_here,
    free_port,
    start,
    state_at,
    steps,
    wait_for,
)

from contextssl_jax.distributed.launchers import Launch, detect_launch
from contextssl_jax.distributed.waiting import describe_waiting, log_waiting
from contextssl_jax.errors import UserError
from launch.finished import is_finished

STEPS = 21
TRAINING = (
    f"--config.train.steps={STEPS}",
    "--config.monitor.every=10",
    "--config.checkpoint.keep=1000",
)
SMALL = (  # most of the time of a report is the compilation of its probes
    "--config.eval.environments=('crop','blur')",
    "--config.eval.lengths=(0,4)",
    "--config.eval.probe.steps=20",
)
REPORT = (f"--config.eval.every={STEPS}", *SMALL)


def report_of(workdir: Path) -> dict:
    return json.loads((workdir / "eval" / str(STEPS) / "report.json").read_text())


def assert_same_figures(one, other, where: str = "") -> None:
    if isinstance(other, dict):
        assert list(one) == list(other), where
        for name in other:
            assert_same_figures(one[name], other[name], f"{where}/{name}")
    else:
        assert one == pytest.approx(other, abs=2e-2, rel=2e-2), where


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    """The process of the tests, with four devices."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    finish_here(workdir, *TRAINING, *REPORT, parallel="pmap")
    return workdir


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """Two processes with two devices each."""
    workdir = tmp_path_factory.mktemp("two") / "run"
    finish(workdir, *TRAINING, *REPORT, processes=2, devices=2)
    return workdir


def test_two_processes_train_as_one(one, two):
    assert steps(one) == steps(two)
    # At the first save, Adam's moments are sums of few gradients, so the tolerance is small.
    assert_close_run(two, one, step=steps(one)[0], rtol=1e-5)
    assert_close_run(two, one, STEPS)


def test_both_processes_write_each_checkpoint(two):
    for step in steps(two):
        folder = two / "checkpoints" / str(step) / "state"
        for process in (0, 1):
            parts = list((folder / f"ocdbt.process_{process}" / "d").iterdir())
            assert sum(part.stat().st_size for part in parts) > 10_000


def test_two_processes_write_the_report_of_one(one, two):
    whole, split = report_of(one), report_of(two)
    assert split.pop("provenance")["views"] == whole.pop("provenance")["views"]
    assert_same_figures(split, whole)


def test_evaluation_of_one_checkpoint_does_not_depend_on_processes(one, tmp_path):
    shutil.copytree(one, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "eval")
    finish(tmp_path, "--mode=eval", *TRAINING, *SMALL, processes=2)
    found, expected = report_of(tmp_path), report_of(one)
    del found["provenance"], expected["provenance"]
    assert_same_figures(found, expected)


@pytest.mark.parametrize("before, after", [("two", 1), ("one", 2)])
def test_run_resumes_with_another_number_of_processes(request, one, tmp_path, before, after):
    shutil.copytree(request.getfixturevalue(before), tmp_path, dirs_exist_ok=True)
    middle = steps(tmp_path)[len(steps(tmp_path)) // 2]
    for step in steps(tmp_path):
        if step > middle:
            shutil.rmtree(tmp_path / "checkpoints" / str(step))
    log = finish(tmp_path, *TRAINING, processes=after, devices=1)
    assert f"from step {middle} of" in log and f"{STEPS} is missing" in log
    assert_close_run(tmp_path, one, STEPS)


def test_signal_to_one_process_stops_both_within_a_report(tmp_path):
    options = ("--config.train.steps=4", "--config.train.warmup_steps=2", "--config.eval.every=4")
    run = start(tmp_path, *options, "--config.monitor.every=0", *SMALL, processes=2)
    wait_for(lambda: steps(tmp_path) == [4], run)  # the report follows
    run[1].send_signal(signal.SIGTERM)
    logs = end(run)
    assert [process.returncode for process in run] == [0, 0], logs
    assert "stopped at step 4 of 4" in logs[0] and not (tmp_path / "eval").exists()
    assert not is_finished(epath.Path(tmp_path))


def test_process_exits_and_names_the_killed_one(tmp_path):
    options = ("--config.train.parallel=shard_map", "--config.monitor.every=0")
    before: list[int] = []
    for lost in (0, 1):
        run = start(tmp_path, *options, processes=2)
        wait_for(lambda before=before: steps(tmp_path) != before, run)
        run[lost].kill()
        logs = end(run)
        assert run[1 - lost].returncode not in (0, None)
        if run[1 - lost].returncode == 1:  # otherwise the runtime has aborted it first
            name = rf"error: lost process {lost} \(\S+, process id {run[lost].pid}\)\. Run the same"
            assert re.search(name, logs[1 - lost]), logs
        if before:  # the run of which a process was killed has resumed
            assert f"from step {before[-1]} of" in logs[0]
        before = steps(tmp_path)


def test_user_error_of_process_0_ends_both_and_is_printed_once(tmp_path):
    (tmp_path / "notes.txt").write_text("a file of the user")
    run = start(tmp_path, processes=2)
    logs = end(run)
    assert [process.returncode for process in run] == [2, 2], logs
    assert "is not empty" in logs[0] and "Traceback" not in logs[0] + logs[1]
    assert "error" not in logs[1]


def test_runs_on_the_same_devices_are_bit_identical(tmp_path, one):
    finish(tmp_path, *TRAINING, "--config.train.parallel=pmap", devices=4)
    assert_same_run(tmp_path, one, STEPS)


STEP = {
    "SLURM_JOB_ID": "70123",
    "SLURM_STEP_NODELIST": "node[007-012,020],other1",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "1(x8)",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "0",
}


@pytest.mark.parametrize(
    "environ, tpu, name, options",
    [
        ({}, False, "single process", None),
        ({"SLURM_JOB_ID": "1", "SLURM_PROCID": "0"}, False, "single process", None),  # no srun
        (STEP | {"SLURM_STEP_NUM_TASKS": "1"}, False, "SLURM", None),
        ({}, True, "TPU", {}),
        ({"JAX_PLATFORMS": "cpu"}, True, "single process", None),
    ],
)
def test_launcher_is_detected_from_the_environment(environ, tpu, name, options):
    assert detect_launch(environ, tpu)[:2] == (name, options)


@pytest.mark.parametrize(
    "nodes, first",
    [
        ("node[007-012,020],other1", "node007"),
        ("a1,b[1-2]", "a1"),
        ("gpu[3]", "gpu3"),
        ("solo", "solo"),
        ("node[1-4]-ib", "node1-ib"),
        ("rack[1-2]node[1-4]", "rack1node1"),
        ("r[02-10,14]n[009-011]-x.cluster,solo", "r02n009-x.cluster"),
        ("[a[1-2],b]-ib,c", "a1-ib"),
        ("gpu-[3,5]", "gpu-3"),
    ],
)
def test_coordinator_is_on_the_first_slurm_node(nodes, first):
    options = detect_launch(STEP | {"SLURM_STEP_NODELIST": nodes}, False).options
    assert options["coordinator_address"].split(":")[0] == first
    assert (options["num_processes"], options["process_id"]) == (8, 3)
    assert "local_device_ids" not in options  # the only task of its node uses all GPUs


@pytest.mark.parametrize(
    "variable, value",
    [
        *(
            ("SLURM_STEP_NODELIST", nodes)
            for nodes in ("", ",a", "node[1-2", "node]1", "[]", "a b")
        ),
        *(("SLURM_STEP_NUM_TASKS", tasks) for tasks in ("x", "", "0", "-2", "2.0", "1" * 5000)),
        *(("SLURM_PROCID", index) for index in ("", "-1", "8")),
        *(("SLURM_JOB_ID", number) for number in ("", "7_1")),
        ("SLURM_LOCALID", "first"),
    ],
)
def test_an_invalid_variable_of_slurm_is_named(variable, value):
    environ = STEP | {"SLURM_STEP_TASKS_PER_NODE": "4(x2)", variable: value}
    with pytest.raises(UserError, match=rf"^{variable}: invalid value .*env -u SLURM_JOB_ID"):
        detect_launch(environ, False)


def test_waiting_processes_are_counted(caplog):
    """By connections to the coordinator's port: here, of process 0 and of one more of four."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        options = {
            "coordinator_address": f"node1:{address[1]}",
            "num_processes": 4,
            "process_id": 0,
        }
        launch = Launch("SLURM", options, "SLURM_JOB_ID")
        with socket.create_connection(address), socket.create_connection(address):
            for _ in range(2):
                server.accept()[0].detach()
            line = describe_waiting(launch)
    if Path("/proc/net/tcp").exists():
        assert "process 0 waits for 2 of 4 processes" in line
    assert f"process 0 at node1:{address[1]}. To run" in line
    assert line.endswith("env -u SLURM_JOB_ID python ...")
    other = launch._replace(options=options | {"process_id": 3})
    assert "process 3 waits for the other processes of 4" in describe_waiting(other)
    assert "TPU: waiting for" in describe_waiting(Launch("TPU", {}))
    with log_waiting(launch, 0):
        deadline = time.monotonic() + 60
        while not caplog.messages and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(caplog.messages) == 1 and "node1" in caplog.text
    with log_waiting(launch, 3600):
        (timer,) = (one for one in threading.enumerate() if isinstance(one, threading.Timer))
    timer.join(60)
    assert not timer.is_alive() and len(caplog.messages) == 1


def test_tasks_of_one_node_use_one_gpu_each():
    shared = STEP | {"SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_LOCALID": "2"}
    assert detect_launch(shared, False).options["local_device_ids"] == [2]
    bound = shared | {"CUDA_VISIBLE_DEVICES": "5"}
    assert "local_device_ids" not in detect_launch(bound, False).options


def test_incomplete_launch_variables_raise():
    with pytest.raises(UserError, match="JAX_PROCESS_ID: not set"):
        detect_launch({"JAX_NUM_PROCESSES": "2", "JAX_COORDINATOR_ADDRESS": "a:1"}, False)


def test_processes_of_slurm_connect_past_a_proxy_and_a_signal_to_one_stops_both(
    tmp_path, monkeypatch
):
    # Only the variables that srun sets, and a proxy that does not exist.
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    number = str(int(time.time()))
    options = ("--config.checkpoint.every=1000", "--config.monitor.every=0")
    run = []
    for i in range(2):
        for name, value in {
            "SLURM_JOB_ID": number,
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_STEP_TASKS_PER_NODE": "2",
            "SLURM_PROCID": str(i),
            "SLURM_LOCALID": str(i),
        }.items():
            monkeypatch.setenv(name, value)
        run += start(tmp_path, *options)
    file = tmp_path / "metrics.jsonl"
    wait_for(lambda: file.exists() and file.read_text().count("\n") > 2, run)
    run[1].send_signal(signal.SIGTERM)
    logs = end(run)
    assert [process.returncode for process in run] == [0, 0], logs
    assert "2 processes" in logs[0] and "proxy" not in logs[0] + logs[1]
    # Both have saved the same step.
    step = int(re.search(r"stopped at step (\d+)", logs[0]).group(1))
    assert steps(tmp_path) == [step]
    assert int(state_at(tmp_path, step)["['step']"]) == step
