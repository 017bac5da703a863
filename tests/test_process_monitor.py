"""The loss of a process ends the other processes at once; a shutdown message does not."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import HANGING

# A process whose key-value store consists of files, and which reads commands from standard input.
PROCESS = """
import logging, os, sys, time
from pathlib import Path
from contextssl_jax.distributed import process_monitor

logging.basicConfig()
process_monitor._CONNECT_TIMEOUT, process_monitor._HELLO_TIMEOUT = float(sys.argv[4]), 0.5

def key_value(key, value=None):
    file = folder / key.replace("/", "_")
    if value is not None:
        file.with_suffix(".new").write_text(value)
        file.with_suffix(".new").rename(file)
    while not file.exists():
        time.sleep(0.01)
    return file.read_text()

folder, index, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
monitor = process_monitor.ProcessMonitor.connect(key_value, "127.0.0.1", index, count)
print("connected", flush=True)
for line in sys.stdin:
    if line.startswith("shutdown"):
        monitor.shutdown(line[9:].strip() or None)
        print("done", flush=True)
"""


class Group:
    """Processes that monitor each other."""

    def __init__(self, folder: Path, count: int, timeout: float = 30.0) -> None:
        self.folder, self.count, self.timeout = folder, count, timeout
        self.processes = [self.start(i) for i in range(count)]

    def start(self, index: int) -> subprocess.Popen:
        arguments = [str(self.folder), str(index), str(self.count), str(self.timeout)]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen([sys.executable, "-c", PROCESS, *arguments], text=True, **pipes)

    def connect(self) -> list[subprocess.Popen]:
        for process in self.processes:
            assert process.stdout.readline() == "connected\n", process.stderr.read()
        return self.processes

    def shutdown(self, index: int, failure: str = "") -> None:
        self.processes[index].stdin.write(f"shutdown {failure}\n")
        self.processes[index].stdin.flush()
        assert self.processes[index].stdout.readline() == "done\n"


@pytest.fixture
def group(tmp_path):
    groups = []

    def start(count: int, timeout: float = 30.0) -> Group:
        groups.append(Group(tmp_path, count, timeout))
        return groups[-1]

    yield start
    for process in (p for one in groups for p in one.processes):
        process.kill()
        process.communicate()


def error_of(process: subprocess.Popen) -> str:
    assert process.wait(timeout=HANGING) == 1  # although its standard input is still open
    return process.stderr.read()


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_all_others_name_the_lost_process(group, lost):
    processes = group(3).connect()
    processes[lost].kill()
    for other in {0, 1, 2} - {lost}:
        name = f"error: lost process {lost} ({socket.gethostname()}, process id"
        error = error_of(processes[other])
        assert f"{name} {processes[lost].pid}). Run the same command again" in error


@pytest.mark.parametrize("failed", [0, 2])
def test_failure_is_sent_to_all_processes(group, failed):
    one = group(3)
    processes = one.connect()
    one.shutdown(failed, "process ended: the reason")
    for other in {0, 1, 2} - {failed}:
        assert "error: process ended: the reason\n" == error_of(processes[other])


@pytest.mark.parametrize("first", [0, 1])
def test_shutdown_is_not_a_loss(group, first):
    one = group(2)
    processes = one.connect()
    one.shutdown(first)
    processes[first].kill()
    time.sleep(0.5)
    assert processes[1 - first].poll() is None
    one.shutdown(1 - first)


def test_suspended_process_is_not_lost(group):
    processes = group(2).connect()
    processes[1].send_signal(signal.SIGSTOP)
    time.sleep(0.5)
    assert processes[0].poll() is None
    processes[1].send_signal(signal.SIGCONT)


def test_connections_with_an_invalid_hello_are_rejected(group, tmp_path):
    one = group(2)
    one.processes[1].send_signal(signal.SIGSTOP)  # until the other connections are made
    while not (tmp_path / "monitor").exists():
        time.sleep(0.01)
    port = json.loads((tmp_path / "monitor").read_text())["port"]
    for hello in (
        b"GET / HTTP/1.0\r\n\r\n",
        b'{"token": "no", "index": 1}\n',
        b"[]",
        b"9" * 9000,
    ):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(hello)
    with socket.create_connection(("127.0.0.1", port)):  # sends nothing
        one.processes[1].send_signal(signal.SIGCONT)
        processes = one.connect()
    processes[1].kill()
    assert "lost process 1" in error_of(processes[0])


def test_unreachable_process_is_not_monitored(group, tmp_path):
    (tmp_path / "monitor").write_text(json.dumps({"port": 9, "token": "t"}))  # a closed port
    one = group(2, timeout=1.0)
    (tmp_path / "process_0").write_text("far away")
    one.processes[0].kill()
    one.processes[0].wait()
    assert one.processes[1].stdout.readline() == "connected\n"
    one.processes[1].kill()
    error = one.processes[1].communicate()[1]
    assert "process 0 (far away) is not monitored: no connection" in error
