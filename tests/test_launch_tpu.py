"""The TPU pod launcher with an emulated gcloud, whose workers are folders on this machine."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import HANGING

from launch import tpu_pod, tpu_worker

_REPOSITORY = Path(__file__).parent.parent

# The file "state" contains the state of the slice, "request" that of its queued resource, and
# "coming" one line for each pair of states that follow, one at each look; "-" is none. A worker is
# a home folder. A command for ssh is split at spaces, as gcloud does, and run by a shell in that
# folder, as sshd does.
_GCLOUD = """
import json, os, shutil, subprocess, sys
place = os.environ["PLACE"]
argv = sys.argv[1:]
with open(f"{place}/calls", "a") as calls: calls.write(json.dumps(argv) + "\\n")
assert argv[:2] == ["compute", "tpus"], argv
group, verb, given = argv[2], argv[3], argv[4:]
flags = dict(one.partition("=")[::2] for one in given if one.startswith("--"))
names = [one for one in given if not one.startswith("--")]
assert flags["--zone"] == "zone-a"
state, request, coming = f"{place}/state", f"{place}/request", f"{place}/coming"
def write(file, text):
    if text != "-": open(file, "w").write(text)
    elif os.path.exists(file): os.remove(file)
def advance():
    lines = open(coming).read().splitlines() if os.path.exists(coming) else ["ACTIVE READY"]
    for file, text in zip([request, state], lines[0].split(" ")): write(file, text)
    if lines[1:]: open(coming, "w").write("\\n".join(lines[1:]))
def workers():
    there = [int(one[6:]) for one in os.listdir(place) if one.startswith("worker")]
    return sorted(there) if flags["--worker"] == "all" else [int(flags["--worker"])]
if verb == "describe":
    if os.path.exists(f"{place}/offline"): sys.exit("ERROR: (gcloud) Unable to connect")
    if group == "tpu-vm" and os.path.exists(coming) and os.path.exists(request): advance()
    file = state if group == "tpu-vm" else request
    if not os.path.exists(file): sys.exit("ERROR: (gcloud) NOT_FOUND: Resource was not found")
    print(open(file).read())
elif (group, verb) == ("queued-resources", "create"):
    assert not os.path.exists(state) and not os.path.exists(request)
    assert flags["--node-id"] == "pod"
    advance()
elif verb == "delete":
    assert ("--force" in flags) == (group == "queued-resources") == os.path.exists(request)
    assert "--quiet" in flags
    for file in request, state: write(file, "-")
elif verb == "start": write(state, "READY")
elif verb == "scp":
    file, destination = names
    assert destination == "pod:"
    for i in workers(): shutil.copy(file, f"{place}/worker{i}")
elif verb == "ssh":
    for name in ("PYTHONPATH", "PYTHONSAFEPATH"): os.environ.pop(name, None)
    command = " ".join(flags["--command"].split(" "))
    path = f"{place}/tools:{os.environ['PATH']}"
    def on(i):
        home = f"{place}/worker{i}"
        if os.path.exists(f"{home}/unreachable"): return 255
        own = {"HOME": home, "PATH": path, "HOST": f"w-{i}"}
        return subprocess.run(["sh", "-c", command], cwd=home, env=os.environ | own).returncode
    codes = [on(i) for i in workers()]
    sys.exit(next((code for code in codes if code), 0))
else: sys.exit("unknown verb " + verb)
"""

# On the workers, pip installs a uv that creates an environment with this Python.
_PYTHON3 = """#!/bin/sh
mkdir -p .uv/bin
printf '#!/bin/sh\\n[ $1 = venv ] || exit 0\\nmkdir -p .venv/bin; ln -s {python} .venv/bin/python\\n' >.uv/bin/uv
chmod +x .uv/bin/uv
echo "$@" >>~/pip
"""  # noqa: E501

_MAIN = """
import json, os, pathlib, signal, sys, time
got = []
signal.signal(signal.SIGTERM, lambda *_: got.append(1))
home = pathlib.Path.home()
with open(home / "started", "a") as file: file.write(json.dumps([os.getpid(), sys.argv[1:]]) + "\\n")
print("at work", flush=True)
if (home / "exit").exists(): sys.exit(int((home / "exit").read_text()))
while not got: time.sleep(0.01)
print("saved", flush=True)
"""  # noqa: E501

_FINISHED = """
import pathlib, sys
assert sys.argv[1:] == ["gs://bucket/run"]
sys.exit(0 if (pathlib.Path.home() / "finished").exists() else 3)
"""

_RUN = ["--config=a.py", "--workdir=gs://bucket/run"]
_CREATE = ["--type=v5litepod-16"]
_NASTY = [
    '--config.a=it\'s "here"',
    "--config.b=$HOME `ls` $(ls) \\ \\\\ *",
    "--config.c=  two  spaces ",
    "--config.d=a\nb\tc",
    "--config.e=;&|<>(){}[]!#~%",
    "--config.f=ü'''",
    "",
]


@pytest.fixture
def place(tmp_path):
    """Create a clone of a tiny project, two workers, and bin/ with gcloud.

    Kills the remaining processes after the test.
    """
    (tmp_path / "clone" / "contextssl_jax").mkdir(parents=True)
    (tmp_path / "clone" / "contextssl_jax" / "__init__.py").touch()
    (tmp_path / "clone" / "contextssl_jax" / "main.py").write_text(_MAIN)
    (tmp_path / "clone" / "launch").mkdir()
    (tmp_path / "clone" / "launch" / "finished.py").write_text(_FINISHED)
    for name in ("bin", "tools", "worker0", "worker1"):
        (tmp_path / name).mkdir()
    files = {
        "bin/gcloud": f"#!{sys.executable} -S\n{_GCLOUD}",
        "tools/python3": _PYTHON3.replace("{python}", sys.executable),
        "tools/hostname": "#!/bin/sh\necho $HOST\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    commit(tmp_path, "init", "--quiet")
    yield tmp_path
    while left := processes_below(tmp_path):
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: not alive(pid))


def processes_below(folder) -> list[int]:
    """Return the live processes whose working directory is in the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(entry / "cwd")).is_relative_to(folder) and alive(int(entry.name)):
                found.append(int(entry.name))
        except OSError:  # exited, or a process of another user
            continue
    return found


def commit(place, *first: str) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (first, ("add", "--all"), ("commit", "--quiet", "--message=x")):
        if command:
            subprocess.run([*git, *command], cwd=place / "clone", check=True)


def launch(place, step: str, *arguments: str, **options) -> subprocess.Popen:
    environment = os.environ | {
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
        "PLACE": str(place),
        "PYTHONPATH": str(_REPOSITORY),
        "PYTHONSAFEPATH": "1",  # the launcher is imported from the repository
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "launch.tpu_pod", step, "--name=pod", "--zone=zone-a"]
    return subprocess.Popen(
        [*command, "--poll=0.05", *arguments],
        cwd=place / "clone",
        env=environment,
        text=True,
        **options,
    )


def pod(place, step: str, *arguments: str, typed: str = "") -> subprocess.CompletedProcess:
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = launch(place, step, *arguments, **pipes)
    stdout, stderr = process.communicate(typed, timeout=HANGING)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def done(found: subprocess.CompletedProcess) -> str:
    assert found.returncode == 0, found.stderr
    return found.stdout


def calls(place) -> list[list[str]]:
    """Return the group, verb and flags of the gcloud calls since the last call of this function."""
    file = place / "calls"
    if not file.exists():
        return []
    found = [json.loads(line)[2:] for line in file.read_text().splitlines()]
    file.unlink()
    return found


def verbs(place) -> list[str]:
    """Return the verbs of `calls`, those for queued resources after a Q."""
    return ["Q" * (group == "queued-resources") + verb for group, verb, *_ in calls(place)]


def started(place) -> list[tuple[int, list[str]]]:
    """Return the process id and arguments of every main that was started on the workers."""
    files = [place / f"worker{i}" / "started" for i in range(2)]
    lines = [line for file in files if file.exists() for line in file.read_text().splitlines()]
    return [tuple(json.loads(line)) for line in lines]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def until(condition) -> None:
    for _ in range(100 * HANGING):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("timeout")


def lose_workers(place) -> None:
    """Kill all processes of the workers and delete their files, as a preemption does."""
    for one in (pid for i in range(2) for pid in processes_below(place / f"worker{i}")):
        os.kill(one, signal.SIGKILL)
    for i in range(2):
        shutil.rmtree(place / f"worker{i}" / "contextssl")


def ready(place) -> None:
    """Create the slice, install the commit, and clear the calls."""
    done(pod(place, "create", *_CREATE))
    done(pod(place, "install"))
    calls(place)


def test_create_requests_a_slice_once(place):
    options = ["--spot", "--valid-until-duration=6h", "--create-option=--internal-ips"]
    done(pod(place, "create", *_CREATE, "--project=p", *options))
    where = ["--zone=zone-a", "--project=p", "pod"]
    kind = ["--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite"]
    values = "--format=value(state.state,state.failedData.error.message)"
    given = ["--spot", "--valid-until-duration=6h", "--internal-ips"]
    slice_state = ["tpu-vm", "describe", *where, "--format=value(state)"]
    assert calls(place) == [
        slice_state,
        ["queued-resources", "describe", *where, values],
        ["queued-resources", "create", *where, "--node-id=pod", *kind, *given],
        slice_state,
    ]
    assert done(pod(place, "create", *_CREATE)) == "pod is READY\n"
    assert verbs(place) == ["describe"]


@pytest.mark.parametrize(
    "accelerator, runtime",
    [
        ("v4-32", "tpu-ubuntu2204-base"),
        ("v5p-16", "v2-alpha-tpuv5"),
        ("v6e-8", "v2-alpha-tpuv6e"),
    ],
)
def test_runtime_version_follows_from_the_type(capsys, accelerator, runtime):
    given = ["", "create", "--name=a", "--zone=b", "--dry-run", f"--type={accelerator}"]
    assert tpu_pod.main(given) == 0
    assert f"--runtime-version={runtime}\n" in capsys.readouterr().out
    assert tpu_pod.main([*given, "--version=own", "--reserved"]) == 0
    assert "--runtime-version=own --reserved\n" in capsys.readouterr().out


def test_create_waits_for_capacity(place):
    states = ["WAITING_FOR_RESOURCES -", "WAITING_FOR_RESOURCES -", "PROVISIONING CREATING"]
    (place / "coming").write_text("\n".join([*states, "ACTIVE READY"]))
    shown = done(pod(place, "create", *_CREATE))
    assert shown == "pod: WAITING_FOR_RESOURCES\npod: CREATING\npod is READY\n"
    looks = ["describe", "Qdescribe"]
    assert verbs(place) == [*looks, "Qcreate", *looks, *looks, "describe"]


@pytest.mark.parametrize(
    "request_state, state, expected",
    [
        ("ACTIVE", "PREEMPTED", ["Qdelete", "Qcreate"]),
        ("SUSPENDED", "-", ["Qdelete", "Qcreate"]),
        ("FAILED", "-", ["Qdelete", "Qcreate"]),  # of an earlier command
        ("-", "TERMINATED", ["delete", "Qcreate"]),  # not created by this launcher
        ("ACTIVE", "STOPPED", ["start"]),
    ],
)
def test_create_by_state(place, request_state, state, expected):
    for name, text in ("request", request_state), ("state", state):
        if text != "-":
            (place / name).write_text(text)
    done(pod(place, "create", *_CREATE))
    assert verbs(place) == ["describe", "Qdescribe", *expected, "describe"]


def test_preempted_slice_is_deleted_when_its_request_is_suspended(place):
    (place / "request").write_text("ACTIVE")
    states = ["SUSPENDING PREEMPTED", "SUSPENDED -", "ACTIVE READY"]
    (place / "coming").write_text("\n".join(states))
    done(pod(place, "create", *_CREATE))
    looks = ["describe", "Qdescribe"]
    assert verbs(place) == [*looks, *looks, "Qdelete", "Qcreate", "describe"]


def test_failed_request_is_an_error_with_its_reason(place):
    (place / "coming").write_text("FAILED\tThe_valid-until_time_has_passed -\n")
    found = pod(place, "create", *_CREATE, "--valid-until-duration=1s")
    assert found.returncode == 2 and verbs(place).count("Qcreate") == 1
    assert "error: pod: its request has failed: The_valid-until_time_has_passed." in found.stderr


@pytest.mark.parametrize("step", ["create", "delete", "status", "resume"])
def test_slice_with_unknown_state_is_an_error(place, step):
    (place / "offline").touch()
    found = pod(place, step, *_CREATE, *(_RUN if step == "resume" else []))
    assert found.returncode == 2 and verbs(place) == ["describe"]
    assert "Unable to connect" in found.stderr
    assert found.stderr.splitlines()[-1].startswith("error: pod: cannot get its state")


def test_each_commit_is_installed_once(place):
    done(pod(place, "create", *_CREATE))
    calls(place)
    assert "w-0: installed\nw-1: installed" in done(pod(place, "install"))
    assert verbs(place) == ["ssh", "scp", "ssh"]
    for i in range(2):
        home = place / f"worker{i}"
        (code,) = (home / "contextssl").iterdir()
        assert (code / "contextssl_jax" / "main.py").read_text() == _MAIN
        assert (home / "pip").read_text() == "-m pip install --quiet --target=.uv uv\n"
        assert not list(home.glob("*.tar.gz"))
    assert not list((place / "clone" / ".git").glob("*.tar.gz"))
    assert "is installed" in done(pod(place, "install"))
    assert verbs(place) == ["ssh"]
    (place / "clone" / "new").touch()
    assert "uncommitted changes are not installed" in done(pod(place, "install"))
    commit(place)
    done(pod(place, "install"))
    assert len(list((place / "worker1" / "contextssl").iterdir())) == 2


def test_interrupted_install_is_repeated(place):
    ready(place)
    (code,) = (place / "worker1" / "contextssl").iterdir()
    (code / ".installed").unlink()
    (code / "left").touch()
    done(pod(place, "install"))
    assert (code / ".installed").exists() and not (code / "left").exists()
    assert (place / "worker0" / "pip").read_text().count("\n") == 1  # not repeated on worker 0


def test_run_continues_after_the_launcher_and_is_started_once(place):
    ready(place)
    done(pod(place, "run", *_RUN))
    until(lambda: len(started(place)) == 2)
    assert all(alive(pid) for pid, _ in started(place))
    calls(place)
    assert "already running" in done(pod(place, "run", *_RUN))
    assert verbs(place) == ["ssh"]
    other = pod(place, "run", *_RUN, "--config.seed=1")
    assert other.returncode == 2 and "another run is live on 2 of 2 workers" in other.stderr
    # A second start on a worker has no effect.
    (folder,) = (one for one in (place / "worker0" / "contextssl").iterdir() if one.is_dir())
    script = tpu_worker.start(folder.name, "mark", _RUN)
    environment = os.environ | {"HOME": str(place / "worker0")}
    subprocess.run(["sh", "-c", script], env=environment, check=True)
    time.sleep(0.3)
    assert len(started(place)) == 2
    shown = done(pod(place, "status"))
    assert shown.startswith("pod: READY\nw-0: live ") and shown.count(" at work\n") == 2


def test_stop_saves_and_resume_continues(place):
    ready(place)
    done(pod(place, "run", *_RUN))
    until(lambda: len(started(place)) == 2)
    done(pod(place, "stop"))
    (first, _), (second, _) = started(place)
    until(lambda: not alive(first))
    assert alive(second)  # the emulated main does not forward the signal
    os.kill(second, signal.SIGTERM)
    until(lambda: "w-0: stopped 0 saved\nw-1: ended 0 saved\n" in done(pod(place, "status")))
    assert "no run is live" in done(pod(place, "stop"))
    calls(place)
    done(pod(place, "resume", *_CREATE, *_RUN))
    assert verbs(place) == ["describe", "ssh", "ssh", "ssh"]  # only run is necessary
    until(lambda: len(started(place)) == 4)
    # The status of the previous run is removed.
    assert not list(place.glob("worker*/contextssl/st[ao]*"))


def test_resume_after_a_preemption_recreates_the_slice(place):
    ready(place)
    (place / "state").write_text("PREEMPTED")
    lose_workers(place)
    done(pod(place, "resume", *_CREATE, *_RUN))
    looks = ["describe", "Qdescribe"]
    expected = [*looks, "Qdelete", "Qcreate", "describe", "ssh", "scp", "ssh", "ssh", "ssh"]
    assert verbs(place) == expected
    until(lambda: len(started(place)) == 2)


def test_supervise_resumes_after_a_preemption_until_the_run_is_finished(place):
    with open(place / "output", "w") as output:
        given = [*_CREATE, "--spot", *_RUN, "--delete-finished"]
        process = launch(place, "supervise", *given, stdin=subprocess.DEVNULL, stdout=output)
    until(lambda: len(started(place)) == 2)
    (place / "clone" / "new").touch()
    commit(place)  # is not installed after the preemption
    (place / "state").write_text("PREEMPTED")
    (place / "request").write_text("SUSPENDING")
    until(lambda: "pod: PREEMPTED" in (place / "output").read_text())
    lose_workers(place)
    (place / "request").write_text("SUSPENDED")
    until(lambda: len(started(place)) == 4)
    assert not list(place.glob("worker*/contextssl/*/new"))
    for pid, _ in started(place)[1::2]:  # as before maintenance
        os.kill(pid, signal.SIGTERM)
    until(lambda: len(started(place)) == 6)
    (place / "worker0" / "finished").touch()
    for pid, _ in started(place):
        if alive(pid):
            os.kill(pid, signal.SIGTERM)
    assert process.wait(HANGING) == 0
    assert "gs://bucket/run is finished" in (place / "output").read_text()
    assert not (place / "request").exists() and not (place / "state").exists()
    assert [verb for verb in verbs(place) if verb in ("Qcreate", "Qdelete")] == [
        *("Qcreate", "Qdelete"),  # the preemption
        *("Qcreate", "Qdelete"),  # the end
    ]


def test_supervise_ends_when_the_user_stops_the_run(place):
    ready(place)
    with open(place / "output", "w") as output:
        process = launch(place, "supervise", *_RUN, stdin=subprocess.DEVNULL, stdout=output)
    until(lambda: len(started(place)) == 2)
    done(pod(place, "stop"))
    os.kill(started(place)[1][0], signal.SIGTERM)
    until(lambda: process.poll() is not None or len(started(place)) > 2)
    assert process.poll() == 0 and len(started(place)) == 2
    assert "gs://bucket/run is stopped" in (place / "output").read_text()


@pytest.mark.parametrize("status, restarts", [(2, 0), (1, 3)])
def test_supervise_restarts_a_failed_run_a_few_times(place, status, restarts):
    ready(place)
    for i in range(2):
        (place / f"worker{i}" / "exit").write_text(str(status))
    found = pod(place, "supervise", *_RUN)
    assert found.returncode == 2 and found.stdout.count("failed: resuming") == restarts
    message = "the run has failed again" if restarts else "the run has a user error"
    assert f"error: pod: {message}" in found.stderr


def test_supervise_prints_its_commands_in_a_dry_run(place):
    given = [*_CREATE, *_RUN, "--delete-finished", "--dry-run"]
    dry = done(pod(place, "supervise", *given)).splitlines()
    assert not calls(place)
    words = [line.split() for line in dry if line.startswith("gcloud")]
    found = [
        "Q" * (group == "queued-resources") + verb for *_, group, verb in (w[:5] for w in words)
    ]
    assert found == [
        *("describe", "Qdescribe", "Qcreate", "describe"),
        *("ssh", "scp", "ssh"),  # install
        *("ssh", "ssh"),  # run
        *("ssh", "ssh"),  # whether it has ended and is finished
        *("Qdescribe", "Qdelete"),
    ]


def test_status_of_a_killed_worker_is_interrupted(place):
    ready(place)
    assert done(pod(place, "status")) == "pod: READY\nw-0: none\nw-1: none\n"
    done(pod(place, "run", *_RUN))
    until(lambda: len(started(place)) == 2)
    pid = started(place)[0][0]
    for one in processes_below(place / "worker0"):  # as a reboot does
        os.kill(one, signal.SIGKILL)
    until(lambda: not alive(pid))
    assert "w-0: interrupted" in done(pod(place, "status"))
    found = pod(place, "run", *_RUN)
    assert found.returncode == 2 and "live on 1 of 2 workers" in found.stderr


def test_arguments_are_passed_unchanged(place):
    ready(place)
    done(pod(place, "run", *_RUN, *_NASTY))
    until(lambda: len(started(place)) == 2)
    assert [arguments for _, arguments in started(place)] == [[*_RUN, *_NASTY]] * 2
    log = place / "worker0" / "contextssl" / "log"
    until(lambda: "at work" in log.read_text())
    assert log.read_text().startswith("$ .venv/bin/python -m contextssl_jax.main --config=a.py")


def test_unreachable_worker_is_an_error(place):
    ready(place)
    (place / "worker1" / "unreachable").touch()
    for step, given in ("run", _RUN), ("install", []), ("status", []):
        found = pod(place, step, *given)
        assert found.returncode == 2
        assert "error: pod: cannot reach all workers" in found.stderr
    assert not started(place)


def test_run_requires_an_installed_commit(place):
    done(pod(place, "create", *_CREATE))
    found = pod(place, "run", *_RUN)
    assert found.returncode == 2 and "w-0: install first" in found.stdout


def test_log_follows_worker_0(place):
    dry = done(pod(place, "log", "--dry-run", "--ssh-option=--internal-ip"))
    assert dry == (
        "gcloud compute tpus tpu-vm ssh --zone=zone-a pod --internal-ip --worker=0"
        " '--command=tail -n 100 -F ~/contextssl/log'\n"
    )


def test_delete_requires_confirmation(place):
    assert done(pod(place, "delete")) == "pod does not exist\n"
    assert verbs(place) == ["describe", "Qdescribe"]
    done(pod(place, "create", *_CREATE))
    for typed in ("", "y\n", "po\n"):
        found = pod(place, "delete", typed=typed)
        assert found.returncode == 2 and "not deleted" in found.stderr
        assert (place / "state").exists()
    done(pod(place, "delete", typed="pod\n"))
    assert not (place / "state").exists() and not (place / "request").exists()
    (place / "request").write_text("WAITING_FOR_RESOURCES")
    shown = done(pod(place, "status"))
    assert shown == "pod: no slice, request WAITING_FOR_RESOURCES\n"
    done(pod(place, "delete", "--yes"))
    assert not (place / "request").exists()


@pytest.mark.parametrize(
    "step, given",
    [
        ("create", _CREATE),
        ("install", []),
        ("run", [*_RUN, *_NASTY]),
        ("resume", [*_CREATE, *_RUN, *_NASTY]),
        ("status", []),
        ("stop", []),
        ("delete", ["--yes"]),
    ],
)
def test_dry_run_prints_the_commands_without_running_them(place, step, given):
    if step not in ("create", "resume"):
        done(pod(place, "create", *_CREATE))
    if step in ("run", "stop"):
        done(pod(place, "install"))
    calls(place)
    dry = done(pod(place, step, *given, "--dry-run"))
    assert not calls(place)
    done(pod(place, step, *given))
    words = shlex.split(dry, comments=True)
    begins = [i for i, word in enumerate(words) if word in ("gcloud", "git")]
    printed = [words[i:j] for i, j in zip(begins, [*begins[1:], None], strict=True)]
    assert [one[3:] for one in printed if one[0] == "gcloud"] == calls(place)
    assert sum(one[0] == "git" for one in printed) == (step in ("install", "resume"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "step: missing or unknown. Specify one of create, install"),
        (["go"], "step: missing or unknown"),
        (["run", "--name=a"], "--name, --zone: missing"),
        (["status", "--name=a", "--zone=b", "--config=c"], "--config=c: unknown flag of status"),
        (["run", "--name=a", "--zone=b"], "--config: missing. Specify a path that all workers"),
        (["run", "--name=a", "--zone=b", "--config=c"], "--workdir: missing"),
        (["create", "--name=a", "--zone=b", "--dry-run"], "--type: missing"),
        (["create", "--name=a", "--zone=b", "--type=v9-8", "--dry-run"], "--version: no default"),
        (["create", "--name=a", "--zone=b", "--spot", "--reserved"], "--reserved: not allowed"),
        (["create", "--name=a", "--zone=b", "--poll=0"], "--poll: not positive"),
        (["supervise", "--name=a", "--zone=b", "--workdir=c"], "--workdir: not in a bucket"),
        (
            ["supervise", "--name=a", "--zone=b", "--workdir=gs://c", "--mode=eval"],
            "--mode: supervise resumes training only",
        ),
        (["create", "--name"], "--name: expected one argument"),
    ],
)
def test_invalid_flag_is_a_one_line_error(place, monkeypatch, capsys, arguments, message):
    monkeypatch.setenv("PATH", str(place / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("PLACE", str(place))
    assert tpu_pod.main(["", *arguments]) == 2 and not (place / "calls").exists()
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {message}") and shown.count("\n") == 1
