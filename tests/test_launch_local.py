"""The launcher for one machine: division of devices, and the started commands."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from running import HANGING

from launch import local

_REPOSITORY = Path(__file__).parent.parent

_MAIN = """
import json, os, sys
mine = ("JAX_", "CUDA_", "PYTHONUNBUFFERED")
cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
print(json.dumps({"argv": sys.argv[1:], "cores": cores,
                  "environment": {k: v for k, v in os.environ.items() if k.startswith(mine)}}))
"""

_NASTY = ['--config.a=it\'s "here"', "--b=$HOME `ls` \\ *", "--processes=9", "", "ü\n;", "-x"]


@pytest.fixture
def place(tmp_path):
    """Return a folder in which contextssl_jax.main prints its arguments and environment."""
    package = tmp_path / "contextssl_jax"
    package.mkdir()
    real = str(_REPOSITORY / "contextssl_jax")
    (package / "__init__.py").write_text(f"__path__.append({real!r})\n")
    (package / "main.py").write_text(_MAIN)
    (tmp_path / "launch").symlink_to(_REPOSITORY / "launch")
    return tmp_path


def launch(place, *arguments: str) -> subprocess.CompletedProcess:
    return execute(place, sys.executable, "-m", "launch.local", *arguments)


def execute(place, *command: str) -> subprocess.CompletedProcess:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "CUDA_"))}
    kept["PYTHONDONTWRITEBYTECODE"] = "1"
    kept.pop("PYTHONUNBUFFERED", None)
    return subprocess.run(
        command, cwd=place, env=kept, capture_output=True, text=True, timeout=HANGING
    )


def parse_output(output: str) -> list[dict]:
    lines = (re.sub(r"^\[\d+\] ", "", line) for line in output.splitlines())
    return sorted(map(json.loads, lines), key=lambda one: one["environment"]["JAX_PROCESS_ID"])


def test_processes_have_their_environment_and_all_other_arguments(place):
    found = launch(place, "--processes=2", "--config", "a.py", "--devices=3", "--", *_NASTY)
    assert found.returncode == 0, found.stderr
    both = parse_output(found.stdout)
    addresses = {one["environment"].pop("JAX_COORDINATOR_ADDRESS") for one in both}
    addresses |= {one["environment"].pop("JAX_COORDINATOR_BIND_ADDRESS") for one in both}
    assert len(addresses) == 1 and re.fullmatch(r"127\.0\.0\.1:\d+", addresses.pop())
    for i, one in enumerate(both):
        assert one["argv"] == ["--config", "a.py", *_NASTY]
        assert one["environment"] == {
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(i),
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "3",
            "PYTHONUNBUFFERED": "1",
        }
    assert found.stderr.startswith("launch: 2 processes, 3 CPU device(s) each")


def test_dry_run_prints_equivalent_shell_commands(place):
    arguments = ["--processes=2", "--gpus=4,5,6,7", "--config=a.py", "--", *_NASTY]
    dry = launch(place, "--dry-run", *arguments)
    assert dry.returncode == 0 and not dry.stderr
    assert len(re.findall(r"^JAX_COORDINATOR_ADDRESS=", dry.stdout, re.M)) == 2
    by_hand = parse_output(execute(place, "sh", "-c", dry.stdout).stdout)
    started = parse_output(launch(place, *arguments).stdout)
    for one in by_hand + started:
        for name in ("JAX_COORDINATOR_ADDRESS", "JAX_COORDINATOR_BIND_ADDRESS"):
            assert one["environment"].pop(name)  # another port each time
    assert by_hand == started and len(started) == 2
    assert [one["environment"]["CUDA_VISIBLE_DEVICES"] for one in started] == ["4,5", "6,7"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--processes: missing. Specify the number"),
        (["--processes=two"], "--processes: invalid int value: 'two'"),
        (["--processes=0"], "--processes: must be at least 1, not 0"),
        (["--processes=2", "--devices=-1"], "--devices: must be at least 1, not -1"),
        (["--processes=2", "--devices=1", "--gpus=0,1"], "--devices: not valid with --gpus"),
        (["--processes=2", "--gpus=0,1,2"], "--processes: 3 GPUs (0,1,2) are not divisible by 2"),
        (["--processes=3", "--gpus=0"], "--processes: 1 GPUs (0) are not divisible by 3"),
        (["--processes=2", "--gpus=1,1"], "--gpus: invalid list '1,1'"),
        (["--processes=1", "--gpus="], "--gpus: invalid list ''"),
    ],
)
def test_invalid_flag_is_a_one_line_error(arguments, message, capsys):
    assert local.main(["local", *arguments, "--config=a.py"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {message}") and err.count("\n") == 1


@pytest.mark.parametrize(
    "environment, names",
    [
        ({"CUDA_VISIBLE_DEVICES": "2, 3"}, ["2", "3"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-a,MIG-b"}, ["GPU-a", "MIG-b"]),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
        ({"CUDA_VISIBLE_DEVICES": "1,-1,2"}, ["1"]),
        ({"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "2"}, []),
        ({"JAX_PLATFORMS": "cuda,cpu"}, ["0", "1"]),
        ({}, ["0", "1"]),
    ],
)
def test_find_gpus_follows_cuda_visible_devices(environment, names, tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    listed = "GPU 0: H (UUID: GPU-1)\n  MIG 1g: x\nGPU 1: H (UUID: GPU-2)"
    tool.write_text(f"#!/bin/sh\n[ $1 = -L ] && echo '{listed}'")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert local.find_gpus(environment) == names


def test_find_gpus_without_a_working_nvidia_smi(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert local.find_gpus({}) == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9")
    tool.chmod(0o755)
    assert local.find_gpus({}) == []


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 7, 10, 11])
def test_all_cores_are_divided_evenly(processes, monkeypatch):
    cores = {1, 2, 3, 4, 6, 8, 9, 10, 12, 13}
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cores, raising=False)
    shares = local.divide_cores(processes)
    assert len(shares) == processes
    if processes in (1, 11):
        assert not any(shares)
    else:
        assert sorted(core for share in shares for core in share) == sorted(cores)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_port_is_reserved_for_a_socket_with_reuseport():
    with local._reserved_port() as port:
        others = []
        for _ in range(300):  # sockets that bind port 0
            other = socket.socket()
            other.bind(("127.0.0.1", 0))
            others.append(other)
        assert port not in {other.getsockname()[1] for other in others}
        for other in others:
            other.close()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        with socket.socket() as coordinator:
            coordinator.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            coordinator.bind(("127.0.0.1", port))
            coordinator.listen()
            for _ in range(20):  # it receives all connections
                with socket.create_connection(("127.0.0.1", port), timeout=5):
                    coordinator.accept()[0].close()
