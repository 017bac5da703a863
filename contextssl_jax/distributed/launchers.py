"""Detection of the launcher that started this process, from its environment variables."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from contextssl_jax.errors import UserError

_PORTS = range(61_440, 65_536)  # ports for a SLURM job's coordinator, chosen by job number
_SLURM_STEP = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")
_LOCAL = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


class Launch(NamedTuple):
    """How this process was launched.

    Attributes:
      name: name of the launcher, for messages.
      options: keyword arguments of jax.distributed.initialize; None for a single process.
      variable: without this environment variable, the process runs alone.
    """

    name: str
    options: dict[str, Any] | None
    variable: str | None = None


def detect_launch(environ: Mapping[str, str], tpu: bool) -> Launch:
    """Detect from the environment which launcher started this process.

    Args:
      environ: environment variables.
      tpu: whether libtpu is installed.

    Raises:
      UserError: a variable of the launcher is missing or invalid.
    """
    if "JAX_NUM_PROCESSES" in environ:
        return Launch("launch.local", _local_options(environ), "JAX_NUM_PROCESSES")
    if all(name in environ for name in _SLURM_STEP):
        tasks = _slurm_number(environ, "SLURM_STEP_NUM_TASKS", 1)
        options = _slurm_options(environ, tasks) if tasks > 1 else None
        return Launch("SLURM", options, "SLURM_JOB_ID")
    if tpu and "cpu" not in environ.get("JAX_PLATFORMS", ""):
        return Launch("TPU", {})  # JAX reads the options from the TPU's metadata server
    return Launch("single process", None)


def first_node(nodes: str) -> str:
    """Return the first name of a SLURM node list, such as a007-ib of a[007-012,020]-ib,b1.

    Raises:
      ValueError: the list is empty, or is not a node list.
    """
    rest, first = nodes, ""
    while rest != first:  # each bracket, inner ones first, becomes its first number
        first, rest = rest, re.sub(r"\[([^][]*)\]", _first_in_bracket, rest, count=1)
    name = first.split(",")[0].strip()
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"invalid node list {nodes!r}")
    return name


def _first_in_bracket(bracket: re.Match[str]) -> str:
    return re.sub(r"^(\d+)-\d+$", r"\1", bracket[1].split(",")[0].strip())


def _local_options(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the options that launch.local sets."""
    for name in _LOCAL:
        pattern = r".+:\d+" if name == _LOCAL[0] else r"\d+"
        if not re.fullmatch(pattern, environ.get(name, "")):
            problem = f"invalid value {environ[name]!r}" if name in environ else "not set"
            raise UserError(
                f"{name}: {problem}. Set {', '.join(_LOCAL)} together, for example to"
                " 127.0.0.1:1234, 2 and 0."
            )
    address, processes, process = (environ[name] for name in _LOCAL)
    return {
        "coordinator_address": address,
        "num_processes": int(processes),
        "process_id": int(process),
        "cluster_detection_method": "deactivate",
    }


def _slurm_options(environ: Mapping[str, str], tasks: int) -> dict[str, Any]:
    """Return the options of a SLURM job step. Tasks that share a node use one GPU each."""
    try:
        node = first_node(environ["SLURM_STEP_NODELIST"])
    except ValueError as error:
        raise _slurm_error("SLURM_STEP_NODELIST", environ) from error
    port = _PORTS[_slurm_number(environ, "SLURM_JOB_ID") % len(_PORTS)]
    options = {
        "coordinator_address": f"{node}:{port}",
        "num_processes": tasks,
        "process_id": _slurm_number(environ, "SLURM_PROCID", maximum=tasks - 1),
        "cluster_detection_method": "deactivate",
    }
    one_per_node = re.fullmatch(r"1(\(x\d+\))?", environ.get("SLURM_STEP_TASKS_PER_NODE", "1"))
    one_visible_gpu = len(environ.get("CUDA_VISIBLE_DEVICES", ",").split(",")) == 1
    if not one_per_node and not one_visible_gpu and "SLURM_LOCALID" in environ:
        options["local_device_ids"] = [_slurm_number(environ, "SLURM_LOCALID")]
    return options


def _slurm_number(
    environ: Mapping[str, str], name: str, minimum: int = 0, maximum: int = 2**63
) -> int:
    """Return the value of a variable of SLURM; raises UserError if it is not in the range."""
    value = environ[name]
    if not re.fullmatch(r"\d{1,18}", value, re.ASCII) or not minimum <= int(value) <= maximum:
        raise _slurm_error(name, environ)
    return int(value)


def _slurm_error(name: str, environ: Mapping[str, str]) -> UserError:
    return UserError(
        f"{name}: invalid value {environ[name]!r}. Start the program with srun, or run it as a"
        " single process without the variable SLURM_JOB_ID (env -u SLURM_JOB_ID python ...)."
    )
