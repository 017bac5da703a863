"""Processes that run one program together: finding one another, and agreeing.

JAX's own runtime carries all of it (`jax.distributed`): its service holds small texts for all
processes, and tells every process of the same step at which to stop.
"""

import itertools
import json
import logging
import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from types import FrameType
from typing import Any, NamedTuple

import jax
from jax._src import distributed  # its client has no public name
from jax.experimental import multihost_utils

from contextssl_jax.distributed.process_monitor import ProcessMonitor
from contextssl_jax.errors import SharedError, UserError

_log = logging.getLogger(__name__)

_PORTS = range(61_440, 65_536)  # of a SLURM job's coordinator, by the job's number
_TOGETHER = 300  # seconds to wait for all processes at the start
_DAY = 24 * 3600 * 1000  # milliseconds that the others wait for what the first does alone

_turns = itertools.count()  # of `first`, which every process calls in the same order


class Launch(NamedTuple):
    """Where a program finds itself.

    Attributes:
      name: of the place.
      options: of jax.distributed.initialize; None where there is no other process.
    """

    name: str
    options: dict[str, Any] | None


def detect_launch(environ: Mapping[str, str], tpu: bool) -> Launch:
    """Finds out from the environment by what this process was started.

    Args:
      environ: environment variables.
      tpu: whether this machine has the TPU's library.

    Raises:
      UserError: variables of a launch are incomplete or no numbers.
    """
    if "JAX_NUM_PROCESSES" in environ:
        return Launch("launch.local", _told(environ))
    step = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID")
    if all(name in environ for name in step):
        tasks = int(environ["SLURM_STEP_NUM_TASKS"])
        return Launch("SLURM", _slurm(environ, tasks) if tasks > 1 else None)
    if tpu and "cpu" not in environ.get("JAX_PLATFORMS", ""):
        return Launch("TPU", {})  # its metadata tells JAX the rest
    return Launch("alone", None)


def join_processes() -> ProcessMonitor | None:
    """Joins the other processes, if there are any; to be called before anything asks for devices.

    Returns:
      The watch over the others; None if this process is alone.

    Raises:
      UserError: the others could not be reached, or the environment is wrong.
    """
    place = detect_launch(os.environ, find_spec("libtpu") is not None)
    if place.options is None:
        return None
    try:
        jax.distributed.initialize(initialization_timeout=_TOGETHER, **place.options)
    except ValueError as error:
        if place.name == "TPU":  # its library, but no TPU
            return None
        raise UserError(f"{place.name}: {error}") from error
    except RuntimeError as error:
        raise UserError(
            f"{place.name}: could not join the other processes: {str(error).splitlines()[0]}"
        ) from error
    if jax.process_count() == 1:
        return None
    state = distributed.global_state
    host = str(state.coordinator_address).rpartition(":")[0]
    return ProcessMonitor.meet(_share, host, jax.process_index(), jax.process_count())


def run_on_primary(work: Callable[[], Any]) -> Any:
    """Does work on process 0 alone, and returns what it returned, as JSON knows it, on all.

    Every process must call this in the same order.

    Raises:
      UserError: the work raised it; on all processes.
    """
    if jax.process_count() == 1:
        return work()
    key = f"first/{next(_turns)}"
    if jax.process_index() == 0:
        try:
            result = work()
        except UserError as error:
            _share(key, json.dumps({"error": str(error)}))
            raise SharedError(str(error)) from error
        _share(key, json.dumps({"result": result}))
        return result
    told = json.loads(_share(key))
    if "error" in told:
        raise SharedError(told["error"])
    return told["result"]


def all_processes_agree(value: Any) -> list[Any]:
    """Returns every process' value, as JSON knows it, by the process' index.

    Every process must call this in the same order.
    """
    if jax.process_count() == 1:
        return [value]
    turn = next(_turns)
    _share(f"agree/{turn}/{jax.process_index()}", json.dumps(value))
    return [json.loads(_share(f"agree/{turn}/{i}")) for i in range(jax.process_count())]


@contextmanager
def stop_signals() -> Iterator[Callable[[int], bool]]:
    """Turns SIGTERM and Ctrl-C to any process into an answer for all: stop at this step.

    Every process must ask before every step. A second signal to a process that is alone, and a
    second Ctrl-C to any, acts as it would have without this.
    """
    together, received = jax.process_count() > 1, list[int]()

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        _log.warning("%s: saving, then stopping", signal.Signals(number).name)
        for one in before:
            signal.signal(one, before[one])
        if together:
            os.kill(os.getpid(), signal.SIGTERM)  # which the runtime tells all processes

    def stopped(step: int) -> bool:
        if not together:
            return bool(received)
        stop: bool = multihost_utils.reached_preemption_sync_point(step)
        if stop and not received:
            _log.info("a process was told to stop: saving, then stopping")
        return stop

    # Where there are others, the runtime itself listens for SIGTERM.
    caught = (signal.SIGINT,) if together else (signal.SIGTERM, signal.SIGINT)
    before = {one: signal.signal(one, receive) for one in caught}
    try:
        yield stopped
    finally:
        for one in before:
            signal.signal(one, before[one])


def _share(key: str, value: str | None = None) -> str:
    """Tells all processes a text under a key; without one, waits for it and returns it."""
    client, key = distributed.global_state.client, f"contextssl/{key}"
    assert client is not None  # joined
    if value is None:
        found: str = client.blocking_key_value_get(key, _DAY)
        return found
    client.key_value_set(key, value)
    return value


def _told(environ: Mapping[str, str]) -> dict[str, Any]:
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    for name in names:
        pattern = r".+:\d+" if name == names[0] else r"\d+"
        if not re.fullmatch(pattern, environ.get(name, "")):
            raise UserError(
                f"{name}: is {environ.get(name, 'not set')!r}; {', '.join(names)} go together, such"
                " as 127.0.0.1:1234, 2 and 0"
            )
    address, processes, process = (environ[name] for name in names)
    return {
        "coordinator_address": address,
        "num_processes": int(processes),
        "process_id": int(process),
        "cluster_detection_method": "deactivate",
    }


def _slurm(environ: Mapping[str, str], tasks: int) -> dict[str, Any]:
    """The processes of a job's step; those that share a node take one GPU each."""
    prefix, bracket, numbers = environ["SLURM_STEP_NODELIST"].split(",")[0].partition("[")
    node = prefix + re.split("[-,]", numbers)[0].rstrip("]") if bracket else prefix
    port = _PORTS[int(environ["SLURM_JOB_ID"]) % len(_PORTS)]
    options = {
        "coordinator_address": f"{node}:{port}",
        "num_processes": tasks,
        "process_id": int(environ["SLURM_PROCID"]),
        "cluster_detection_method": "deactivate",
    }
    alone = re.fullmatch(r"1(\(x\d+\))?", environ.get("SLURM_STEP_TASKS_PER_NODE", "1"))
    bound = len(environ.get("CUDA_VISIBLE_DEVICES", ",").split(",")) == 1
    if not alone and not bound and "SLURM_LOCALID" in environ:
        options["local_device_ids"] = [int(environ["SLURM_LOCALID"])]
    return options
