"""Lock of a workdir: one live run holds it, and the lock of a dead run is taken over."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from etils import epath

from contextssl_jax.errors import UserError
from contextssl_jax.run import lock as module
from contextssl_jax.run.lock import Lock

HOLD = """
import sys, time
from etils import epath
from contextssl_jax.run.lock import Lock
with Lock(epath.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def workdir(tmp_path) -> epath.Path:
    return epath.Path(tmp_path)


@pytest.fixture
def holder(tmp_path):
    """Start another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_error_names_the_holder(workdir, holder):
    with pytest.raises(UserError) as caught, Lock(workdir):
        pass
    held = json.loads((workdir / "lock.json").read_text())
    expected = f"in use by process {holder.pid} on {held['host']} since {held['since']}"
    assert expected in str(caught.value)
    assert held["process"] == holder.pid  # the lock file is unchanged


def test_suspended_process_keeps_the_lock(workdir, holder):
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(UserError, match="in use"), Lock(workdir):
        pass


def test_lock_of_dead_process_is_taken_over(workdir, holder):
    holder.kill()
    holder.wait()
    assert (workdir / "lock.json").exists()
    with Lock(workdir) as lock:
        lock.check()
        assert json.loads((workdir / "lock.json").read_text())["process"] == os.getpid()
    assert not list(workdir.iterdir())  # all files are removed


def test_lock_is_stale_if_its_pid_was_reused(workdir, holder):
    held = json.loads((workdir / "lock.json").read_text())
    (workdir / "lock.json").write_text(json.dumps(held | {"started": "1"}))
    with Lock(workdir):
        pass


def test_lock_is_released_after_an_exception(workdir):
    with pytest.raises(ZeroDivisionError), Lock(workdir):
        raise ZeroDivisionError
    with Lock(workdir), pytest.raises(UserError, match="in use"), Lock(workdir):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": 1}', "null"])
def test_invalid_lock_file_is_taken_over(workdir, monkeypatch, text):
    monkeypatch.setattr(module, "_WRITE_TIME", 0.01)
    (workdir / "lock.json").write_text(text)
    with Lock(workdir):
        pass


@pytest.mark.parametrize("beats", [True, False])
def test_lock_of_another_machine_is_valid_while_its_heartbeat_changes(workdir, monkeypatch, beats):
    monkeypatch.setattr(module, "_HEARTBEAT_TIMEOUT", 60.0 if beats else 0.3)
    monkeypatch.setattr(module, "_HEARTBEAT_CHECK", 0.05)
    held = {"host": "far", "process": 1, "since": "then", "machine": "other", "token": "t"}
    file = workdir / "lock.json"
    file.write_text(json.dumps(held | {"beat": 1}))

    def beat() -> None:
        time.sleep(0.2)
        file.write_text(json.dumps(held | {"beat": 2}))

    thread = threading.Thread(target=beat)
    if beats:
        thread.start()
        with pytest.raises(UserError, match="in use by process 1 on far"), Lock(workdir):
            pass
        thread.join()
    else:
        with Lock(workdir):
            pass


def test_holder_writes_heartbeats(workdir, monkeypatch):
    monkeypatch.setattr(module, "_HEARTBEAT_INTERVAL", 0.05)
    with Lock(workdir) as lock:
        time.sleep(0.5)
        assert json.loads((workdir / "lock.json").read_text())["beat"] > 2
        lock.check()


def test_check_raises_after_a_takeover(workdir):
    with Lock(workdir) as lock:
        held = json.loads((workdir / "lock.json").read_text())
        (workdir / "lock.json").write_text(json.dumps(held | {"token": "other", "process": 7}))
        with pytest.raises(UserError, match="was taken over by process 7"):
            lock.check()
    assert json.loads((workdir / "lock.json").read_text())["token"] == "other"  # not removed


def test_one_of_many_concurrent_runs_takes_over_a_stale_lock(workdir):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.communicate()
    stale = {"host": "here", "process": dead.pid, "since": "then", "machine": module._machine_id()}
    (workdir / "lock.json").write_text(json.dumps(stale | {"started": "1", "token": "t"}))
    barrier, acquired, rejected = threading.Barrier(8), [], []

    def run() -> None:
        lock = Lock(workdir)
        barrier.wait()
        try:
            lock.__enter__()
            acquired.append(lock)
        except UserError:
            rejected.append(lock)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(acquired) == 1 and len(rejected) == 7
    acquired[0].check()
    acquired[0].__exit__(None, None, None)
