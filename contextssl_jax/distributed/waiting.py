"""A log line that names the processes that a start waits for."""

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contextssl_jax.distributed.launchers import Launch

_log = logging.getLogger(__name__)
_DELAY = 10.0  # seconds
_ESTABLISHED = "01"  # state of a connection in /proc/net/tcp


@contextmanager
def log_waiting(launch: Launch, delay: float = _DELAY) -> Iterator[None]:
    """Log once who is waited for, unless the with block ends within `delay` seconds."""
    timer = threading.Timer(delay, lambda: _log.warning("%s", describe_waiting(launch)))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def describe_waiting(launch: Launch) -> str:
    """Return which processes a process of a launch waits for, and how to run it alone."""
    options = launch.options or {}
    if "coordinator_address" not in options:
        return f"{launch.name}: waiting for the other processes"
    address, count = options["coordinator_address"], options["num_processes"]
    index, port = options["process_id"], int(address.rpartition(":")[2])
    joined = count_connections(port) if index == 0 else None
    missing = (
        f"{count - joined} of {count} processes"
        if joined is not None and 0 < joined < count
        else f"the other processes of {count}"
    )
    return (
        f"{launch.name}: process {index} waits for {missing} to connect to the coordinator,"
        f" process 0 at {address}. To run this process alone: env -u {launch.variable} python ..."
    )


def count_connections(port: int) -> int | None:
    """Return the number of TCP connections to a local port; None where Linux's /proc is missing."""
    try:
        tables = [Path("/proc/net", name).read_text() for name in ("tcp", "tcp6")]
    except OSError:
        return None
    pattern = rf"^ *\d+: [0-9A-F]+:{port:04X} [0-9A-F]+:[0-9A-F]{{4}} {_ESTABLISHED} "
    return sum(len(re.findall(pattern, table, re.MULTILINE)) for table in tables)
