"""Start multi-process runs, and synchronize decisions between processes.

Both use `jax.distributed`: its coordination service has a key-value store that all processes share,
and a preemption sync point, which makes all processes stop at the same step.
"""

import itertools
import json
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import jax
from jax._src import distributed  # its client has no public name
from jax.experimental import multihost_utils

from contextssl_jax.distributed.launchers import detect_launch
from contextssl_jax.distributed.process_monitor import ProcessMonitor
from contextssl_jax.distributed.waiting import log_waiting
from contextssl_jax.errors import SharedError, UserError
from contextssl_jax.storage.paths import is_installed

_log = logging.getLogger(__name__)

_STARTUP_TIMEOUT = 300  # seconds to wait for all processes
_KEY_TIMEOUT = 24 * 3600 * 1000  # milliseconds to wait for the result of another process

# The same on all processes, which make the same calls in order.
_call_counter, _stop_counter = itertools.count(), itertools.count()


def join_processes() -> ProcessMonitor | None:
    """Initialize jax.distributed if there are several processes.

    Call this before any JAX function that initializes devices.

    Returns:
      The monitor of the other processes; None for a single process.

    Raises:
      UserError: the other processes are not reachable, or the environment is invalid.
    """
    launch = detect_launch(os.environ, is_installed("libtpu"))
    if launch.options is None:
        return None
    # The processes connect directly. JAX's library for this, gRPC, would use a proxy of the web.
    os.environ["grpc_proxy"] = ""
    jax.config.update("jax_check_proxy_envs", False)  # a warning about such proxies
    try:
        with log_waiting(launch):
            jax.distributed.initialize(initialization_timeout=_STARTUP_TIMEOUT, **launch.options)
    except ValueError as error:
        if launch.name == "TPU":  # libtpu is installed, but there is no TPU
            return None
        raise UserError(f"{launch.name}: {error}") from error
    except RuntimeError as error:
        raise UserError(
            f"{launch.name}: cannot connect to the other processes"
            f" ({str(error).splitlines()[0]}). Check the first log lines of process 0."
        ) from error
    if jax.process_count() == 1:
        return None
    state = distributed.global_state
    host = str(state.coordinator_address).rpartition(":")[0]
    return ProcessMonitor.connect(_key_value, host, jax.process_index(), jax.process_count())


class Interrupted(Exception):
    """Work was left between two of its parts, on all processes, because of a stop signal."""


def run_on_primary(work: Callable[[], Any]) -> Any:
    """Call `work` on process 0 only, and return its result, as a JSON value, on all processes.

    Every process must call this function, in the same order.

    Raises:
      UserError: `work` raised it. All processes raise it.
    """
    if jax.process_count() == 1:
        return work()
    key = f"primary/{next(_call_counter)}"
    if jax.process_index() == 0:
        try:
            result = work()
        except UserError as error:
            _key_value(key, json.dumps({"error": str(error)}))
            raise SharedError(str(error)) from error
        _key_value(key, json.dumps({"result": result}))
        return result
    outcome = json.loads(_key_value(key))
    if "error" in outcome:
        raise SharedError(outcome["error"])
    return outcome["result"]


def all_processes_agree(value: Any) -> list[Any]:
    """Return the values of all processes, as JSON values, in the order of the process index.

    Every process must call this function, in the same order.
    """
    if jax.process_count() == 1:
        return [value]
    call = next(_call_counter)
    _key_value(f"agree/{call}/{jax.process_index()}", json.dumps(value))
    return [json.loads(_key_value(f"agree/{call}/{i}")) for i in range(jax.process_count())]


@contextmanager
def stop_signals(action: str) -> Iterator[Callable[[], bool]]:
    """Handle SIGTERM and Ctrl-C to any process by stopping all processes at the same point.

    Args:
      action: what the program does after a signal, for the log.

    Yields:
      A function that returns True once the program should stop. Every process must call it at the
      same points, such as before every step. A second signal to a single process, and a second
      Ctrl-C to any process, has its default effect.
    """
    distributed_run, received, stopping = jax.process_count() > 1, list[int](), False

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        _log.warning("%s: %s", signal.Signals(number).name, action)
        for one in previous_handlers:
            signal.signal(one, previous_handlers[one])
        if distributed_run:
            os.kill(os.getpid(), signal.SIGTERM)  # the runtime forwards it to all processes

    def should_stop() -> bool:
        nonlocal stopping
        if not distributed_run:
            return bool(received)
        if not stopping:  # the runtime returns True once, at the same call on all processes
            stopping = multihost_utils.reached_preemption_sync_point(next(_stop_counter))
            if stopping and not received:
                _log.info("another process received a signal: %s", action)
        return stopping

    # With several processes, the runtime itself handles SIGTERM.
    handled = (signal.SIGINT,) if distributed_run else (signal.SIGTERM, signal.SIGINT)
    previous_handlers = {one: signal.signal(one, handle) for one in handled}
    try:
        yield should_stop
    finally:
        for one in previous_handlers:
            signal.signal(one, previous_handlers[one])


def interrupter(should_stop: Callable[[], bool]) -> Callable[[], None]:
    """Return a function that raises Interrupted once `should_stop` returns True."""

    def check_stop() -> None:
        if should_stop():
            raise Interrupted

    return check_stop


def _key_value(key: str, value: str | None = None) -> str:
    """Set a value in the shared key-value store; without a value, wait for it and return it."""
    client, key = distributed.global_state.client, f"contextssl/{key}"
    assert client is not None  # jax.distributed is initialized
    if value is None:
        found: str = client.blocking_key_value_get(key, _KEY_TIMEOUT)
        return found
    client.key_value_set(key, value)
    return value
