"""The TPU pod launcher with an emulated gcloud, whose workers are folders on this machine."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import HANGING

from launch import tpu_worker

_REPOSITORY = Path(__file__).parent.parent

# The file "state" contains the state of the slice. A worker is a home folder. A command for ssh is
# split at spaces, as gcloud does, and run by a shell in that folder, as sshd does.
_GCLOUD = """
import json, os, shutil, subprocess, sys
place = os.environ["PLACE"]
argv = sys.argv[1:]
with open(f"{place}/calls", "a") as calls: calls.write(json.dumps(argv) + "\\n")
assert argv[:3] == ["compute", "tpus", "tpu-vm"], argv
verb, given = argv[3], argv[4:]
flags = dict(one.partition("=")[::2] for one in given if one.startswith("--"))
names = [one for one in given if not one.startswith("--")]
assert flags["--zone"] == "zone-a"
state = f"{place}/state"
def workers():
    there = [int(one[6:]) for one in os.listdir(place) if one.startswith("worker")]
    return sorted(there) if flags["--worker"] == "all" else [int(flags["--worker"])]
if verb == "describe":
    if os.path.exists(f"{place}/offline"): sys.exit("ERROR: (gcloud) Unable to connect")
    if not os.path.exists(state):
        sys.exit("ERROR: (gcloud.compute.tpus.tpu-vm.describe) NOT_FOUND: Resource was not found")
    print(open(state).read())
elif verb == "create":
    assert not os.path.exists(state)
    open(state, "w").write("READY")
elif verb == "delete":
    assert flags.keys() >= {"--quiet"}
    os.remove(state)
elif verb == "start": open(state, "w").write("READY")
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
while not got: time.sleep(0.01)
print("saved", flush=True)
"""  # noqa: E501

_RUN = ["--config=a.py", "--workdir=gs://bucket/run"]
_CREATE = ["--type=v5litepod-16", "--version=v2-alpha-tpuv5-lite"]
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


def pod(place, step: str, *arguments: str, typed: str = "") -> subprocess.CompletedProcess:
    environment = os.environ | {
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
        "PLACE": str(place),
        "PYTHONPATH": str(_REPOSITORY),
        "PYTHONSAFEPATH": "1",  # the launcher is imported from the repository
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "launch.tpu_pod", step, "--name=pod", "--zone=zone-a"]
    return subprocess.run(
        [*command, *arguments],
        cwd=place / "clone",
        env=environment,
        input=typed,
        capture_output=True,
        text=True,
        timeout=HANGING,
    )


def done(found: subprocess.CompletedProcess) -> str:
    assert found.returncode == 0, found.stderr
    return found.stdout


def calls(place) -> list[list[str]]:
    """Return the verbs and flags of the gcloud calls since the last call of this function."""
    file = place / "calls"
    if not file.exists():
        return []
    found = [json.loads(line)[3:] for line in file.read_text().splitlines()]
    file.unlink()
    return found


def verbs(place) -> list[str]:
    return [call[0] for call in calls(place)]


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


def ready(place) -> None:
    """Create the slice, install the commit, and clear the calls."""
    done(pod(place, "create", *_CREATE))
    done(pod(place, "install"))
    calls(place)


def test_create_is_idempotent(place):
    done(pod(place, "create", *_CREATE, "--project=p", "--create-option=--spot"))
    where = ["--zone=zone-a", "--project=p", "pod"]
    options = ["--accelerator-type=v5litepod-16", "--version=v2-alpha-tpuv5-lite", "--spot"]
    assert calls(place) == [
        ["describe", *where, "--format=value(state)"],
        ["create", *where, *options],
    ]
    assert done(pod(place, "create", *_CREATE)) == "pod exists\n"
    assert verbs(place) == ["describe"]


@pytest.mark.parametrize(
    "state, expected",
    [
        ("PREEMPTED", ["describe", "delete", "create"]),
        ("TERMINATED", ["describe", "delete", "create"]),
        ("STOPPED", ["describe", "start"]),
        ("CREATING", ["describe"]),
    ],
)
def test_create_by_state(place, state, expected):
    (place / "state").write_text(state)
    found = pod(place, "create", *_CREATE)
    assert verbs(place) == expected
    assert found.returncode == (2 if state == "CREATING" else 0)


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
    until(lambda: "w-0: ended 0 saved\nw-1: ended 0 saved\n" in done(pod(place, "status")))
    assert "no run is live" in done(pod(place, "stop"))
    calls(place)
    done(pod(place, "resume", *_CREATE, *_RUN))
    assert verbs(place) == [
        "describe",
        "ssh",
        "ssh",
        "ssh",
    ]  # only run is necessary
    until(lambda: len(started(place)) == 4)
    # The status of the previous run is removed.
    assert not list(place.glob("worker*/contextssl/status"))


def test_resume_after_a_preemption_recreates_the_slice(place):
    ready(place)
    (place / "state").write_text("PREEMPTED")
    for i in range(2):
        subprocess.run(["rm", "-r", place / f"worker{i}" / "contextssl"], check=True)
    done(pod(place, "resume", *_CREATE, *_RUN))
    expected = ["describe", "delete", "create", "ssh", "scp", "ssh", "ssh", "ssh"]
    assert verbs(place) == expected
    until(lambda: len(started(place)) == 2)


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
    (place / "state").write_text("READY")
    for typed in ("", "y\n", "po\n"):
        found = pod(place, "delete", typed=typed)
        assert found.returncode == 2 and "not deleted" in found.stderr
        assert (place / "state").exists()
    done(pod(place, "delete", typed="pod\n"))
    assert not (place / "state").exists()
    (place / "state").write_text("READY")
    done(pod(place, "delete", "--yes"))
    assert not (place / "state").exists()


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
    assert [one[4:] for one in printed if one[0] == "gcloud"] == calls(place)
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
        (["create", "--name=a", "--zone=b", "--dry-run"], "--type, --version: missing"),
        (["create", "--name"], "--name: expected one argument"),
    ],
)
def test_invalid_flag_is_a_one_line_error(place, arguments, message):
    found = subprocess.run(
        [sys.executable, "-m", "launch.tpu_pod", *arguments],
        cwd=_REPOSITORY,
        env=os.environ | {"PATH": f"{place / 'bin'}:{os.environ['PATH']}", "PLACE": str(place)},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 2 and not (place / "calls").exists()
    assert found.stderr.startswith(f"error: {message}") and found.stderr.count("\n") == 1
