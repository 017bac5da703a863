"""Several processes on this machine: python -m launch.local --processes=4 --config=configs/…

Every process gets its share of this machine's GPUs, or CPU devices of its own and a share of the
cores. Flags that are not listed here, and all that follow --, go to contextssl_jax.main.
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

from launch.flags import Mistake, Parser
from launch.process import Command, leash
from launch.together import run

_HOST = "127.0.0.1"


class Share(NamedTuple):
    """What one process gets: environment variables, and the cores that it is held to, if any."""

    environment: dict[str, str]
    cores: Sequence[int]


def main(argv: Sequence[str]) -> int:
    """Does what the command line says; returns the exit status, 2 for a mistake in it."""
    try:
        options, arguments = parse(argv[1:])
        shares = divide(options.processes, options.devices, options.gpus)
    except Mistake as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with _reserved_port() as port:
        built = commands(shares, port, arguments)
        if options.dry_run:
            for command in built:
                print(_in_shell(command))
            return 0
        print(f"launch: {_described(shares)}", file=sys.stderr, flush=True)
        return run(built)


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Returns the launcher's own options, and the arguments that are for main.

    Raises:
      Mistake: a value is wrong, or --processes is missing.
    """
    parser = Parser(
        prog="python -m launch.local",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--processes", type=int, help="how many to start")
    parser.add_argument("--devices", type=int, help="CPU devices of each; else GPUs where found")
    parser.add_argument("--gpus", help="to divide, such as 0,1,2,3; by default all that are here")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, start nothing")
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options, rest = parser.parse_known_args(arguments[:split])
    if options.processes is None:
        raise Mistake("--processes: say how many to start, such as --processes=2")
    for name in ("processes", "devices"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise Mistake(f"--{name}: must be at least 1, not {value}")
    if options.devices is not None and options.gpus is not None:
        raise Mistake("--devices: counts CPU devices; name it or --gpus")
    return options, [*rest, *arguments[split + 1 :]]


def divide(processes: int, devices: int | None, gpus: str | None) -> list[Share]:
    """Divides this machine among processes.

    Args:
      processes: how many.
      devices: CPU devices of each; None for GPUs where there are any, else 1.
      gpus: to divide, names with commas between them; None for all.

    Raises:
      Mistake: the GPUs do not divide evenly, or --gpus names none or one twice.
    """
    if gpus is not None:
        names = [name.strip() for name in gpus.split(",")]
        if not all(names) or len(set(names)) < len(names):
            raise Mistake(f"--gpus: name each GPU once, such as --gpus=0,1, not {gpus!r}")
    else:
        names = find_gpus(os.environ) if devices is None else []
    if not names:
        own = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices or 1)}
        return [Share(own, cores) for cores in divide_cores(processes)]
    if len(names) % processes:
        raise Mistake(
            f"--processes: {processes} processes cannot share {len(names)} GPUs"
            f" ({','.join(names)}) evenly; name some with --gpus, or CPU devices with --devices"
        )
    each = len(names) // processes
    return [
        Share({"CUDA_VISIBLE_DEVICES": ",".join(names[i : i + each])}, ())
        for i in range(0, len(names), each)
    ]


def find_gpus(environment: Mapping[str, str]) -> list[str]:
    """Returns the GPUs of this machine as CUDA_VISIBLE_DEVICES names them, without asking JAX."""
    if environment.get("JAX_PLATFORMS") == "cpu":
        return []
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        # CUDA stops at the first that is none.
        end = next((i for i, name in enumerate(names) if name in ("", "-1")), len(names))
        return names[:end]
    if not (tool := shutil.which("nvidia-smi")):
        return []
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True).stdout.splitlines()
    return [line.split(":")[0].removeprefix("GPU ") for line in listed if line.startswith("GPU ")]


def divide_cores(processes: int) -> list[Sequence[int]]:
    """Returns the cores of each process; none are named where there are too few."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if processes == 1 or len(cores) < processes:
        return [()] * processes
    ends = [i * len(cores) // processes for i in range(processes + 1)]
    return [cores[i:j] for i, j in zip(ends, ends[1:], strict=False)]


def commands(shares: Sequence[Share], port: int, arguments: Sequence[str]) -> list[Command]:
    """Returns the commands of a run, process 0 first.

    Args:
      shares: of the processes.
      port: of this machine, at which process 0 coordinates the others.
      arguments: of contextssl_jax.main.
    """
    start, taskset = leash(), shutil.which("taskset")
    built = []
    for i, share in enumerate(shares):
        pin = [taskset, "--cpu-list", ",".join(map(str, share.cores))] if taskset else []
        command = [*start, *(pin if share.cores else []), sys.executable]
        command += ["-m", "contextssl_jax.main", *arguments]
        own = {
            "JAX_COORDINATOR_ADDRESS": f"{_HOST}:{port}",
            # Else it would be open to the network.
            "JAX_COORDINATOR_BIND_ADDRESS": f"{_HOST}:{port}",
            "JAX_NUM_PROCESSES": str(len(shares)),
            "JAX_PROCESS_ID": str(i),
            "PYTHONUNBUFFERED": "1",
        }
        built.append(Command(command, own | share.environment))
    return built


@contextmanager
def _reserved_port() -> Iterator[int]:
    """Yields a free port that no one else is given before process 0 listens on it, nor after.

    This socket stays bound but does not listen. SO_REUSEPORT lets processes of the same user that
    ask for this very port have it, as JAX's coordinator does; a process that asks for any port
    gets another.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((_HOST, 0))
        yield held.getsockname()[1]


def _described(shares: Sequence[Share]) -> str:
    gpus = [share.environment.get("CUDA_VISIBLE_DEVICES") for share in shares]
    if gpus[0]:
        what = f"GPUs {' | '.join(map(str, gpus))}"
    else:
        what = f"{shares[0].environment['JAX_NUM_CPU_DEVICES']} CPU device(s) each"
        if shares[0].cores:
            what += f", cores {' | '.join(','.join(map(str, share.cores)) for share in shares)}"
    return f"{len(shares)} processes, {what}"


def _in_shell(command: Command) -> str:
    assigned = [f"{name}={shlex.quote(value)}" for name, value in command.environment.items()]
    return " ".join([*assigned, shlex.join(command.arguments)])


if __name__ == "__main__":
    sys.exit(main(sys.argv))
