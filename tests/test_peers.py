"""The loss of one process ends the others, at once; a goodbye does not."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

# Shares texts through files, meets the others, and does what it is told on its standard input.
PROCESS = """
import logging, os, sys, time
from pathlib import Path
from contextssl_jax.distributed import process_monitor

logging.basicConfig()
peers._MEETING, peers._HELLO = float(sys.argv[4]), 0.5

def share(key, value=None):
    file = folder / key.replace("/", "_")
    if value is not None:
        file.with_suffix(".new").write_text(value)
        file.with_suffix(".new").rename(file)
    while not file.exists():
        time.sleep(0.01)
    return file.read_text()

folder, index, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
watch = peers.Peers.meet(share, "127.0.0.1", index, count)
print("met", flush=True)
for line in sys.stdin:
    if line.startswith("leave"):
        watch.leave(line[6:].strip() or None)
        print("left", flush=True)
"""


class Group:
    """Processes that have met, or are about to."""

    def __init__(self, folder: Path, count: int, meeting: float = 30.0) -> None:
        self.folder, self.count, self.meeting = folder, count, meeting
        self.processes = [self.start(i) for i in range(count)]

    def start(self, index: int) -> subprocess.Popen:
        arguments = [str(self.folder), str(index), str(self.count), str(self.meeting)]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen([sys.executable, "-c", PROCESS, *arguments], text=True, **pipes)

    def meet(self) -> list[subprocess.Popen]:
        for process in self.processes:
            assert process.stdout.readline() == "met\n", process.stderr.read()
        return self.processes

    def leave(self, index: int, failure: str = "") -> None:
        self.processes[index].stdin.write(f"leave {failure}\n")
        self.processes[index].stdin.flush()
        assert self.processes[index].stdout.readline() == "left\n"


@pytest.fixture
def group(tmp_path):
    made = []

    def make(count: int, meeting: float = 30.0) -> Group:
        made.append(Group(tmp_path, count, meeting))
        return made[-1]

    yield make
    for process in (p for one in made for p in one.processes):
        process.kill()
        process.communicate()


def told(process: subprocess.Popen) -> str:
    assert process.wait(timeout=20) == 1  # its standard input is still open
    return process.stderr.read()


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_all_others_name_the_lost_one(group, lost):
    processes = group(3).meet()
    began = time.monotonic()
    processes[lost].kill()
    for other in {0, 1, 2} - {lost}:
        name = f"error: lost process {lost} ({socket.gethostname()}, process id"
        assert f"{name} {processes[lost].pid}); the same command" in told(processes[other])
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("failed", [0, 2])
def test_a_failure_is_told_to_all(group, failed):
    one = group(3)
    processes = one.meet()
    one.leave(failed, "process ended: the reason")
    for other in {0, 1, 2} - {failed}:
        assert "error: process ended: the reason\n" == told(processes[other])


@pytest.mark.parametrize("first", [0, 1])
def test_a_goodbye_is_no_loss(group, first):
    one = group(2)
    processes = one.meet()
    one.leave(first)
    processes[first].kill()
    time.sleep(0.5)
    assert processes[1 - first].poll() is None
    one.leave(1 - first)


def test_a_suspended_process_is_not_lost(group):
    processes = group(2).meet()
    processes[1].send_signal(signal.SIGSTOP)
    time.sleep(0.5)
    assert processes[0].poll() is None
    processes[1].send_signal(signal.SIGCONT)


def test_strangers_change_nothing(group, tmp_path):
    one = group(2)
    one.processes[1].send_signal(signal.SIGSTOP)  # until the strangers have been there
    while not (tmp_path / "peers").exists():
        time.sleep(0.01)
    port = json.loads((tmp_path / "peers").read_text())["port"]
    for greeting in (
        b"GET / HTTP/1.0\r\n\r\n",
        b'{"token": "no", "index": 1}\n',
        b"[]",
        b"9" * 9000,
    ):
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(greeting)
    with socket.create_connection(("127.0.0.1", port)):  # says nothing
        one.processes[1].send_signal(signal.SIGCONT)
        processes = one.meet()
    processes[1].kill()
    assert "lost process 1" in told(processes[0])


def test_where_there_is_no_way_the_run_goes_on(group, tmp_path):
    (tmp_path / "peers").write_text(json.dumps({"port": 9, "token": "t"}))  # nobody listens there
    one = group(2, meeting=1.0)
    (tmp_path / "peer_0").write_text("far away")
    one.processes[0].kill()
    one.processes[0].wait()
    assert one.processes[1].stdout.readline() == "met\n"
    one.processes[1].kill()
    assert "no connection to process 0 (far away) to watch it" in one.processes[1].communicate()[1]
