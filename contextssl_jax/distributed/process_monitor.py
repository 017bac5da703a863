"""Detect the loss of a process, so that the other processes exit at once and name it.

Without this monitor they would hang in a collective until the runtime's heartbeats time out, and
then be aborted. Process 0 holds a TCP connection to every other process. A connection that closes
without a shutdown message means that the process is lost; TCP keep-alive detects a lost host.
"""

import json
import logging
import os
import secrets
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

_log = logging.getLogger(__name__)

KeyValueStore = Callable[..., str]  # (key, value) sets a value; (key) waits for it and returns it

_KEEP_ALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))  # seconds, count
_CONNECT_TIMEOUT, _HELLO_TIMEOUT = 60.0, 5.0  # seconds, for all processes and for one hello
_MESSAGE_BYTES = 4096  # maximum size of a message
_RESUME_HINT = "Run the same command again to resume from the last checkpoint."


class ProcessMonitor:
    """The connections of this process, and the thread that reads from them."""

    def __init__(
        self, index: int, connections: dict[int, socket.socket], names: dict[int, str]
    ) -> None:
        """Start the thread that reads from the connections.

        Args:
          index: index of this process.
          connections: connections by process index: process 0 has one to every other process, the
            other processes have one to process 0.
          names: human-readable names of all processes, by index.
        """
        self._index, self._connections, self._names = index, connections, names
        self._shutting_down = False
        threading.Thread(target=self._listen, name="process-monitor", daemon=True).start()

    @classmethod
    def connect(cls, store: KeyValueStore, host: str, index: int, count: int) -> "ProcessMonitor":
        """Connect process 0 to all other processes that can reach it.

        Args:
          store: key-value store that all processes share.
          host: host name or address of process 0.
          index: index of this process.
          count: number of processes.
        """
        store(f"process/{index}", f"{socket.gethostname()}, process id {os.getpid()}")
        if index == 0:
            connections = _accept_connections(store, count)
        else:
            connections = _connect_to_primary(store, host, index)
        names = {i: store(f"process/{i}") for i in range(count)}
        expected = range(1, count) if index == 0 else (0,)
        for other in expected:
            if other not in connections:
                _log.warning("process %d (%s) is not monitored: no connection", other, names[other])
        for connection in connections.values():
            _enable_keep_alive(connection)
        return cls(index, connections, names)

    def shutdown(self, failure: str | None = None) -> None:
        """Announce the end of this process. The other processes exit if `failure` is given."""
        self._shutting_down = True  # connections that close from now on are expected
        for connection in self._connections.values():
            _send(connection, {"failure": failure})

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            for index, connection in self._connections.items():
                selector.register(connection, selectors.EVENT_READ, index)
            while selector.get_map():
                for key, _ in selector.select():
                    self._receive(selector, key.data, self._connections[key.data])

    def _receive(
        self, selector: selectors.BaseSelector, index: int, connection: socket.socket
    ) -> None:
        try:
            line = connection.recv(_MESSAGE_BYTES)
        except OSError:  # connection reset, or keep-alive timeout
            line = b""
        if not line:
            selector.unregister(connection)
            self._exit(index, f"lost process {index} ({self._names[index]}). {_RESUME_HINT}")
            return
        message = json.loads(line.splitlines()[0])
        selector.unregister(connection)  # a shutdown message is the last message
        if message.get("failure"):
            self._exit(index, message["failure"])

    def _exit(self, index: int, failure: str) -> None:
        """Forward the failure and exit with status 1, unless this process is shutting down."""
        if self._shutting_down:
            return
        if self._index == 0:
            for other, connection in self._connections.items():
                if other != index:
                    _send(connection, {"failure": failure})
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"error: {failure}\n".encode())
        os._exit(1)  # the main thread may hang in a collective


def _accept_connections(store: KeyValueStore, count: int) -> dict[int, socket.socket]:
    """Accept one connection per process until all are connected or the timeout has passed."""
    token, deadline = secrets.token_hex(), time.monotonic() + _CONNECT_TIMEOUT
    connections: dict[int, socket.socket] = {}
    with socket.create_server(("", 0)) as server:
        store("monitor", json.dumps({"port": server.getsockname()[1], "token": token}))
        while len(connections) < count - 1:
            server.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                connection, _ = server.accept()
            except OSError:
                break
            index = _authenticate(connection, token, count)
            if index is None:
                connection.close()
            else:
                connections[index] = connection
    return connections


def _connect_to_primary(store: KeyValueStore, host: str, index: int) -> dict[int, socket.socket]:
    """Connect to process 0. Return an empty dictionary if it is not reachable."""
    address = json.loads(store("monitor"))
    try:
        connection = socket.create_connection((host, address["port"]), timeout=_CONNECT_TIMEOUT)
    except OSError:
        return {}
    _send(connection, {"token": address["token"], "index": index})
    connection.settimeout(None)
    return {0: connection}


def _authenticate(connection: socket.socket, token: str, count: int) -> int | None:
    """Return the index of the connecting process, or None if its hello message is invalid."""
    connection.settimeout(_HELLO_TIMEOUT)
    try:
        hello = json.loads(connection.recv(_MESSAGE_BYTES))
        valid = hello["token"] == token and 0 < hello["index"] < count
    except (OSError, ValueError, TypeError, KeyError):
        return None
    connection.settimeout(None)
    return hello["index"] if valid else None


def _enable_keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE:
        if hasattr(socket, name):  # not defined on every platform
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    try:
        connection.sendall(json.dumps(message).encode() + b"\n")
    except OSError:  # the other process has already closed the connection
        pass
