"""Start several processes on this machine: python -m launch.local --processes=4 --config=configs/…

The GPUs of the machine are divided among the processes. Without GPUs, each process has its own CPU
devices, and the cores are divided. Other flags, and all arguments after --, are passed to
contextssl_jax.main.
"""

import argparse
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from contextssl_jax.errors import Parser, UserError
from launch.process import Command, kill_with_parent
from launch.process_group import run

_HOST = "127.0.0.1"


class Resources(NamedTuple):
    """Environment variables of a process that select its devices, and the cores it is pinned to."""

    environment: dict[str, str]
    cores: Sequence[int]  # empty for no pinning


def main(argv: Sequence[str]) -> int:
    """Run the command line. Return the exit status, which is 2 for a user error."""
    try:
        options, arguments = parse(argv[1:])
        resources = divide_resources(options.processes, options.devices, options.gpus)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with _reserved_port() as port:
        commands = build_commands(resources, port, arguments)
        if options.dry_run:
            for command in commands:
                print(_format_shell(command))
            return 0
        print(f"launch: {_summarize(resources)}", file=sys.stderr, flush=True)
        return run(commands)


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options of the launcher, and the arguments for contextssl_jax.main.

    Raises:
      UserError: a value is invalid, or --processes is missing.
    """
    parser = Parser(
        prog="python -m launch.local",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--processes", type=int, help="number of processes")
    parser.add_argument(
        "--devices", type=int, help="number of CPU devices of each process; default: use GPUs"
    )
    parser.add_argument("--gpus", help="GPUs to use, such as 0,1,2,3; default: all")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, do not start")
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options, rest = parser.parse_known_args(arguments[:split])
    if options.processes is None:
        raise UserError(
            "--processes: missing. Specify the number of processes, such as --processes=2."
        )
    for name in ("processes", "devices"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name}: must be at least 1, not {value}.")
    if options.devices is not None and options.gpus is not None:
        raise UserError("--devices: not valid with --gpus. Specify only one of them.")
    return options, [*rest, *arguments[split + 1 :]]


def divide_resources(processes: int, devices: int | None, gpus: str | None) -> list[Resources]:
    """Divide the devices and cores of this machine among processes.

    Args:
      processes: number of processes.
      devices: number of CPU devices of each process; None to use GPUs, or one CPU device if there
        are none.
      gpus: comma-separated names of the GPUs to use; None for all.

    Raises:
      UserError: the number of GPUs is not divisible by the number of processes, or --gpus has an
        empty or repeated name.
    """
    if gpus is not None:
        names = [name.strip() for name in gpus.split(",")]
        if not all(names) or len(set(names)) < len(names):
            raise UserError(
                f"--gpus: invalid list {gpus!r}. Specify each GPU once, such as --gpus=0,1."
            )
    else:
        names = find_gpus(os.environ) if devices is None else []
    if not names:
        environment = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices or 1)}
        return [Resources(environment, cores) for cores in divide_cores(processes)]
    if len(names) % processes:
        raise UserError(
            f"--processes: {len(names)} GPUs ({','.join(names)}) are not divisible by {processes}"
            " processes. Select GPUs with --gpus, or use CPU devices with --devices."
        )
    count = len(names) // processes
    return [
        Resources({"CUDA_VISIBLE_DEVICES": ",".join(names[i : i + count])}, ())
        for i in range(0, len(names), count)
    ]


def find_gpus(environment: Mapping[str, str]) -> list[str]:
    """Return the GPUs of this machine, as in CUDA_VISIBLE_DEVICES, without initializing JAX."""
    if environment.get("JAX_PLATFORMS") == "cpu":
        return []
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        # CUDA ignores the first invalid name and all names after it.
        end = next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))
        return names[:end]
    if not (tool := shutil.which("nvidia-smi")):
        return []
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True).stdout.splitlines()
    return [line.split(":")[0].removeprefix("GPU ") for line in listed if line.startswith("GPU ")]


def divide_cores(processes: int) -> list[Sequence[int]]:
    """Return the cores of each process; empty lists if there are fewer cores than processes."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if processes == 1 or len(cores) < processes:
        return [()] * processes
    ends = [i * len(cores) // processes for i in range(processes + 1)]
    return [cores[i:j] for i, j in zip(ends, ends[1:], strict=False)]


def build_commands(
    resources: Sequence[Resources], port: int, arguments: Sequence[str]
) -> list[Command]:
    """Return the commands of the processes, in the order of their index.

    Args:
      resources: resources of each process.
      port: port of the coordinator, which runs in process 0.
      arguments: arguments of contextssl_jax.main.
    """
    prefix, taskset = kill_with_parent(), shutil.which("taskset")
    commands = []
    for i, (environment, cores) in enumerate(resources):
        pin = [taskset, "--cpu-list", ",".join(map(str, cores))] if taskset else []
        command = [*prefix, *(pin if cores else []), sys.executable]
        command += ["-m", "contextssl_jax.main", *arguments]
        distributed = {
            "JAX_COORDINATOR_ADDRESS": f"{_HOST}:{port}",
            # By default, the coordinator listens on all network interfaces.
            "JAX_COORDINATOR_BIND_ADDRESS": f"{_HOST}:{port}",
            "JAX_NUM_PROCESSES": str(len(resources)),
            "JAX_PROCESS_ID": str(i),
            "PYTHONUNBUFFERED": "1",
        }
        commands.append(Command(command, distributed | environment))
    return commands


@contextmanager
def _reserved_port() -> Iterator[int]:
    """Yield a port that stays reserved for process 0.

    The socket is bound but does not listen. With SO_REUSEPORT, a process of the same user that also
    sets it, as JAX's coordinator does, can bind this port. A process that binds port 0 is assigned
    a different one.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((_HOST, 0))
        yield held.getsockname()[1]


def _summarize(resources: Sequence[Resources]) -> str:
    gpus = [environment.get("CUDA_VISIBLE_DEVICES") for environment, _ in resources]
    if gpus[0]:
        devices = f"GPUs {' | '.join(map(str, gpus))}"
    else:
        devices = f"{resources[0].environment['JAX_NUM_CPU_DEVICES']} CPU device(s) each"
        if resources[0].cores:
            devices += f", cores {' | '.join(','.join(map(str, cores)) for _, cores in resources)}"
    return f"{len(resources)} processes, {devices}"


def _format_shell(command: Command) -> str:
    assignments = [f"{name}={shlex.quote(value)}" for name, value in command.environment.items()]
    return " ".join([*assignments, shlex.join(command.arguments)])


if __name__ == "__main__":
    sys.exit(main(sys.argv))
