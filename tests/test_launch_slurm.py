"""The SLURM launcher with emulated SLURM commands, which start real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from etils import epath
from running import HANGING

from contextssl_jax.run.workdir import mark_interrupted
from launch.finished import is_finished

_REPOSITORY = Path(__file__).parent.parent

# Saves its arguments and its standard input.
_SBATCH = """
import json, sys
json.dump({"argv": sys.argv[1:], "script": sys.stdin.read()}, open("submitted", "w"))
print("Submitted batch job 7")
"""

# Starts two tasks on this machine. Like the real srun, it kills all tasks on SIGTERM, and with
# --kill-on-bad-exit when one fails.
_SRUN = """
import json, os, signal, subprocess, sys, threading
own = [one for one in sys.argv[1:] if one.startswith("--")]
first = next(i for i, one in enumerate(sys.argv[1:], 1) if not one.startswith("--"))
own, command = sys.argv[1:first], sys.argv[first:]
step = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2"}
tasks = [subprocess.Popen(command, env=os.environ | step | {
    "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}) for i in range(2)]
def kill(*_):
    for task in tasks: task.kill()
signal.signal(signal.SIGTERM, kill)
json.dump({"own": own, "pids": [task.pid for task in tasks]}, open("step.new", "w"))
os.rename("step.new", "step")
def wait(task):
    if task.wait() and "--kill-on-bad-exit=1" in own: kill()
threads = [threading.Thread(target=wait, args=[task]) for task in tasks]
for thread in threads: thread.start()
for thread in threads: thread.join()
sys.exit(max(code if code >= 0 else 128 - code for code in (task.returncode for task in tasks)))
"""

_SCANCEL = """
import json, os, signal, sys
assert sys.argv[1:] == ["--signal=TERM", "7"], sys.argv
for pid in json.load(open("step"))["pids"]: os.kill(pid, signal.SIGTERM)
"""

_SCONTROL = """
import sys
print(*sys.argv[1:], file=open("scontrol", "a"))
"""

# Emulates contextssl_jax.main. The file "does" selects what it does.
_MAIN = """
import json, os, pathlib, signal, sys, time
rank = os.environ["SLURM_PROCID"]
got = []
signal.signal(signal.SIGTERM, lambda *_: got.append(1))
json.dump(sys.argv[1:], open(f"argv-{rank}", "w"))
pathlib.Path(f"ready-{rank}").touch()
does = open("does").read()
if does == "fails" and rank == "1":
    # Else --kill-on-bad-exit may kill the other task before it is ready.
    while not (os.path.exists("ready-0") and os.path.exists("step")): time.sleep(0.01)
    sys.exit(3)
while does != "finishes" and not got: time.sleep(0.01)
time.sleep(0.2)
folder = next(one for one in sys.argv if one.startswith("--workdir=")).partition("=")[2]
step = "5" if does == "waits" else "9"
os.makedirs(f"{folder}/checkpoints/{step}", exist_ok=True)
json.dump({"train": {"steps": 9}}, open(f"{folder}/config.json", "w"))
if does == "reports": open(f"{folder}/interrupted.json", "w").close()
os.write(1, f"task {rank} at step {step} after {len(got)} signals\\n".encode())
"""

_ARGUMENTS = ["--nodes=1", "--gpus-per-node=2", "--config=a.py", "--workdir=my runs/it's"]


@pytest.fixture
def place(tmp_path):
    """Return a folder with the launcher, the emulated main, and bin/ with SLURM's commands."""
    package = tmp_path / "contextssl_jax"
    package.mkdir()
    real = str(_REPOSITORY / "contextssl_jax")
    (package / "__init__.py").write_text(f"__path__.append({real!r})\n")
    (package / "main.py").write_text(_MAIN)
    (tmp_path / "launch").symlink_to(_REPOSITORY / "launch")
    (tmp_path / "a.py").touch()
    (tmp_path / "bin").mkdir()
    for name, code in {
        "sbatch": _SBATCH,
        "srun": _SRUN,
        "scancel": _SCANCEL,
        "scontrol": _SCONTROL,
    }.items():
        (tmp_path / "bin" / name).write_text(f"#!{sys.executable} -S\n{code}")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    return tmp_path


def environment(place) -> dict[str, str]:
    return os.environ | {
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "SLURM_JOB_ID": "7",
    }


def submit(place, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["launch/slurm.sh", *arguments],
        cwd=place,
        env=environment(place),
        capture_output=True,
        text=True,
        timeout=HANGING,
    )


def submitted(place) -> dict:
    return json.loads((place / "submitted").read_text())


def start_job(place, does: str) -> subprocess.Popen:
    """Run the submitted script as SLURM does, and wait until the tasks are running."""
    (place / "does").write_text(does)
    (place / "script").write_text(submitted(place)["script"])
    job = subprocess.Popen(
        ["bash", "script"],
        cwd=place,
        env=environment(place),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(place / "ready-0", place / "ready-1", place / "step")
    return job


def wait_for(*files: Path) -> None:
    for _ in range(100 * HANGING):
        if all(file.exists() for file in files):
            return
        time.sleep(0.01)
    raise AssertionError(f"missing one of {files}")


def requeued(place) -> bool:
    file = place / "scontrol"
    if not file.exists():
        return False
    assert file.read_text() == "requeue 7\n"
    return True


def test_submitted_options(place):
    found = submit(place, *_ARGUMENTS, "--time=1:00:00", "--partition", "big", "--requeue")
    assert (found.returncode, found.stdout) == (0, "Submitted batch job 7\n"), found.stderr
    argv = submitted(place)["argv"]
    name = argv[0]
    assert argv == [
        name,
        "--dependency=singleton",
        "--ntasks-per-node=2",
        "--signal=TERM@120",
        "--requeue",
        "--open-mode=append",
        "--nodes=1",
        "--gpus-per-node=2",
        "--time=1:00:00",
        "--partition",
        "big",
        "--requeue",
    ]
    assert name.startswith("--job-name=it's-")
    # The job name identifies the workdir; a second job of the same name waits.
    submit(place, *_ARGUMENTS[:-1], "--workdir=./my runs/../my runs/it's")
    assert submitted(place)["argv"][0] == name
    submit(place, *_ARGUMENTS[:-1], "--workdir=other runs/it's")
    assert submitted(place)["argv"][0] != name


@pytest.mark.parametrize(
    "given, tasks",
    [
        ("--gpus-per-node=8", 8),
        ("--gpus-per-node=h100:4", 4),
        ("--gpus-per-node 4", 4),
        ("--gpus-per-node=h100", 1),
        ("--gres=gpu:3", 3),
        ("--gres=gpu:a100:4", 4),
        ("--gres=gpu", 1),
        ("--gres=nvme:800", 1),
        ("--nodes=3", 1),
    ],
)
def test_one_task_per_gpu(place, given, tasks):
    submit(place, *given.split(), "--config=a.py", "--workdir=w")
    argv = submitted(place)["argv"]
    assert f"--ntasks-per-node={tasks}" in argv
    assert given.replace(" ", "=") in argv


def test_dry_run_prints_an_equivalent_shell_command(place):
    submit(place, *_ARGUMENTS, "--comment=it's $HOME")
    real = submitted(place)
    (place / "submitted").unlink()
    dry = submit(place, *_ARGUMENTS, "--comment=it's $HOME", "--dry-run")
    assert dry.returncode == 0 and not (place / "submitted").exists()
    assert dry.stdout.startswith("sbatch --job-name=")
    subprocess.run(["bash", "-c", dry.stdout], cwd=place, env=environment(place), check=True)
    assert submitted(place) == real


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--workdir=w"], "--config: missing. Specify a config, such as"),
        (["--config=b.py", "--workdir=w"], "--config: b.py does not exist"),
        (["--config=a.py"], "--workdir: missing. Specify a folder"),
        (["--workdir"], "--workdir: missing value"),
        (["--gpus=4"], "--gpus: not supported. Specify the GPUs per node with --gpus-per-node"),
        (["--gpus-per-task=1"], "--gpus-per-task: not supported"),
    ],
)
def test_invalid_option_is_a_one_line_error(place, arguments, message):
    found = submit(place, *arguments)
    assert found.returncode == 2 and not (place / "submitted").exists()
    assert found.stderr.startswith(f"error: {message}") and found.stderr.count("\n") == 1


def test_arguments_are_passed_to_all_tasks_unchanged(place):
    nasty = ['--config.a=it\'s "here"', "--config.b=$HOME `ls` \\ *", "--config.c=ü\n;"]
    submit(place, *_ARGUMENTS, *nasty, "--config.d", "x y", "--deterministic")
    job = start_job(place, "finishes")
    assert job.wait(30) == 0, job.stdout.read()
    expected = [*_ARGUMENTS[2:], *nasty, "--config.d=x y", "--deterministic"]
    assert [json.loads((place / f"argv-{i}").read_text()) for i in range(2)] == [expected] * 2
    assert "--label" in json.loads((place / "step").read_text())["own"]
    job.stdout.close()


def test_finished_run_is_not_requeued(place):
    submit(place, *_ARGUMENTS)
    job = start_job(place, "finishes")
    out, _ = job.communicate(timeout=HANGING)
    assert job.returncode == 0 and not requeued(place)
    assert "task 0 at step 9 after 0 signals" in out


def test_run_at_its_time_limit_saves_and_is_requeued(place):
    submit(place, *_ARGUMENTS)
    job = start_job(place, "waits")
    for pid in json.loads((place / "step").read_text())["pids"]:
        os.kill(pid, signal.SIGTERM)  # as SLURM: the tasks, not the shell
    out, _ = job.communicate(timeout=HANGING)
    assert job.returncode == 0 and requeued(place)
    assert out.count("at step 5 after 1 signals") == 2
    assert "not finished: requeueing job 7" in out


def test_run_whose_final_report_is_interrupted_is_requeued(place):
    submit(place, *_ARGUMENTS)
    job = start_job(place, "reports")
    for pid in json.loads((place / "step").read_text())["pids"]:
        os.kill(pid, signal.SIGTERM)
    out, _ = job.communicate(timeout=HANGING)
    assert job.returncode == 0 and requeued(place)
    assert out.count("at step 9 after 1 signals") == 2


def test_run_is_not_requeued_after_an_error_of_the_finished_check(place):
    submit(place, *_ARGUMENTS[:-1], "--workdir=s3://bucket/run")
    job = start_job(place, "waits")
    for pid in json.loads((place / "step").read_text())["pids"]:
        os.kill(pid, signal.SIGTERM)
    out, _ = job.communicate(timeout=HANGING)
    assert "error: WORKDIR: s3://bucket/run" in out and not requeued(place)


def test_cancelled_run_saves_and_is_not_requeued(place):
    submit(place, *_ARGUMENTS)
    job = start_job(place, "waits")
    job.send_signal(signal.SIGTERM)
    out, _ = job.communicate(timeout=HANGING)
    assert job.returncode == 0 and not requeued(place)
    assert out.count("at step 5 after 1 signals") == 2


def test_failed_run_ends_all_tasks_and_is_not_requeued(place):
    submit(place, *_ARGUMENTS)
    job = start_job(place, "fails")
    job.communicate(timeout=HANGING)
    assert job.returncode in (3, 137) and not requeued(place)


def test_evaluation_is_not_requeued(place):
    submit(place, *_ARGUMENTS, "--mode=eval")
    job = start_job(place, "waits")
    for pid in json.loads((place / "step").read_text())["pids"]:
        os.kill(pid, signal.SIGTERM)
    job.communicate(timeout=HANGING)
    assert job.returncode == 0 and not requeued(place)


def test_cpus_per_task_are_passed_to_srun(place):
    submit(place, *_ARGUMENTS)
    script = submitted(place)["script"]
    for cores, flag in {"6": "--cpus-per-task=6", "": None}.items():
        shown = subprocess.run(
            ["bash", "-c", "srun() { printf '%s\\n' \"$@\"; }\n" + script],
            cwd=place,
            env=environment(place) | {"SLURM_CPUS_PER_TASK": cores},
            capture_output=True,
            text=True,
        ).stdout.splitlines()
        assert [one for one in shown if one.startswith("--cpus")] == ([flag] if flag else [])
        assert "" not in shown


def test_run_is_finished_if_its_last_checkpoint_is_complete(tmp_path):
    workdir = epath.Path(tmp_path)
    assert not is_finished(workdir)
    (tmp_path / "config.json").write_text('{"train": {"steps": 9}}')
    assert not is_finished(workdir)
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    (tmp_path / "checkpoints" / "9.orbax-checkpoint-tmp").mkdir()
    assert not is_finished(workdir)
    (tmp_path / "checkpoints" / "9").mkdir()
    assert is_finished(workdir)
    mark_interrupted(workdir, True)
    assert not is_finished(workdir)
    for _ in range(2):
        mark_interrupted(workdir, False)
        assert is_finished(workdir)
    for text in ('{"train": ', '{"train": 9}', "[9]", "{}"):
        (tmp_path / "config.json").write_text(text)
        assert not is_finished(workdir)
