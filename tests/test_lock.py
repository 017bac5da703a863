"""A folder belongs to one live run; what a dead run left is taken over."""

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
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_is_told_who_the_first_is(workdir, holder):
    with pytest.raises(UserError) as told, Lock(workdir):
        pass
    held = json.loads((workdir / "lock.json").read_text())
    assert f"in use by process {holder.pid} on {held['host']}, since {held['since']}" in str(
        told.value
    )
    assert held["process"] == holder.pid  # and left as it is


def test_a_suspended_process_still_holds(workdir, holder):
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(UserError, match="in use"), Lock(workdir):
        pass


def test_a_dead_process_holds_nothing(workdir, holder):
    holder.kill()
    holder.wait()
    assert (workdir / "lock.json").exists()
    with Lock(workdir) as lock:
        lock.check()
        assert json.loads((workdir / "lock.json").read_text())["process"] == os.getpid()
    assert not list(workdir.iterdir())  # nothing is left behind


def test_a_process_number_may_be_used_again(workdir, holder):
    held = json.loads((workdir / "lock.json").read_text())
    (workdir / "lock.json").write_text(json.dumps(held | {"started": "1"}))
    with Lock(workdir):
        pass


def test_the_lock_ends_with_its_run_even_a_failed_one(workdir):
    with pytest.raises(ZeroDivisionError), Lock(workdir):
        raise ZeroDivisionError
    with Lock(workdir), pytest.raises(UserError, match="in use"), Lock(workdir):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": 1}', "null"])
def test_an_unreadable_lock_is_nobodys(workdir, text):
    (workdir / "lock.json").write_text(text)
    with Lock(workdir):
        pass


@pytest.mark.parametrize("beats", [True, False])
def test_a_lock_from_another_machine_is_held_while_it_beats(workdir, monkeypatch, beats):
    monkeypatch.setattr(module, "_WATCH", 3.0)
    held = {"host": "far", "process": 1, "since": "then", "machine": "other", "token": "t"}
    file = workdir / "lock.json"
    file.write_text(json.dumps(held | {"beat": 1}))

    def beat() -> None:
        time.sleep(1.5)
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


def test_the_holder_beats(workdir, monkeypatch):
    monkeypatch.setattr(module, "_BEAT", 0.05)
    with Lock(workdir) as lock:
        time.sleep(0.5)
        assert json.loads((workdir / "lock.json").read_text())["beat"] > 2
        lock.check()


def test_one_that_was_taken_over_ends(workdir):
    with Lock(workdir) as lock:
        held = json.loads((workdir / "lock.json").read_text())
        (workdir / "lock.json").write_text(json.dumps(held | {"token": "other", "process": 7}))
        with pytest.raises(UserError, match="was taken over by process 7"):
            lock.check()
    assert json.loads((workdir / "lock.json").read_text())["token"] == "other"  # not ours to take


def test_of_many_at_once_one_gets_it(workdir):
    # All find the lock of a dead process, at the same moment.
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.communicate()
    stale = {"host": "here", "process": dead.pid, "since": "then", "machine": module._machine()}
    (workdir / "lock.json").write_text(json.dumps(stale | {"started": "1", "token": "t"}))
    barrier, got, refused = threading.Barrier(8), [], []

    def run() -> None:
        lock = Lock(workdir)
        barrier.wait()
        try:
            lock.__enter__()
            got.append(lock)
        except UserError:
            refused.append(lock)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1 and len(refused) == 7
    got[0].check()
    got[0].__exit__(None, None, None)
