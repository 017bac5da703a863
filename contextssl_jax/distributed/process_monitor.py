"""A watch over the other processes: when one is lost, the others end at once and name it.

Without it they would hang in a collective until the runtime's heartbeats time out, and then be
aborted. Process 0 keeps a connection to every other process: its end, without a goodbye, is the
process' end; a host that vanishes shows by TCP's own keep-alive.
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

Share = Callable[..., str]  # (key, value) tells all processes; (key) waits for it

_VANISHED = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))  # seconds, times
_MEETING, _HELLO = 60.0, 5.0  # seconds to wait for all, and for one to say who it is
_LINE = 4096  # bytes of a message, at most
_AGAIN = "the same command again goes on from the last checkpoint"


class ProcessMonitor:
    """The connections of this process, and the thread that listens to them."""

    def __init__(self, index: int, links: dict[int, socket.socket], names: dict[int, str]) -> None:
        """Starts to listen.

        Args:
          index: of this process.
          links: connections by the other's index: of process 0 to all, of the others to process 0.
          names: of all processes by index, for people.
        """
        self._index, self._links, self._names = index, links, names
        self._left = False
        threading.Thread(target=self._listen, name="peers", daemon=True).start()

    @classmethod
    def meet(cls, share: Share, host: str, index: int, count: int) -> "ProcessMonitor":
        """Connects process 0 with all the others, or with those that it can.

        Args:
          share: tells all processes a text under a key.
          host: where process 0 can be reached.
          index: of this process.
          count: of processes.
        """
        share(f"peer/{index}", f"{socket.gethostname()}, process id {os.getpid()}")
        links = _welcome(share, count) if index == 0 else _visit(share, host, index)
        names = {i: share(f"peer/{i}") for i in range(count)}
        wanted = range(1, count) if index == 0 else (0,)
        for other in wanted:
            if other not in links:
                _log.warning("no connection to process %d (%s) to watch it", other, names[other])
        for link in links.values():
            _keep_alive(link)
        return cls(index, links, names)

    def leave(self, failure: str | None = None) -> None:
        """Says goodbye to the others, who end too if there is a failure to tell."""
        self._left = True  # what the others do from now on is no loss
        for link in self._links.values():
            _send(link, {"failure": failure})

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            for index, link in self._links.items():
                selector.register(link, selectors.EVENT_READ, index)
            while selector.get_map():
                for key, _ in selector.select():
                    self._hear(selector, key.data, self._links[key.data])

    def _hear(self, selector: selectors.BaseSelector, index: int, link: socket.socket) -> None:
        try:
            line = link.recv(_LINE)
        except OSError:  # reset, or no sign of life
            line = b""
        if not line:
            selector.unregister(link)
            self._end(index, f"lost process {self._of(index)}; {_AGAIN}")
            return
        message = json.loads(line.splitlines()[0])
        selector.unregister(link)  # nothing follows a goodbye
        if message.get("failure"):
            self._end(index, message["failure"])

    def _of(self, index: int) -> str:
        return f"{index} ({self._names[index]})"

    def _end(self, index: int, failure: str) -> None:
        """Ends this process, from whatever it hangs in, unless it is leaving by itself."""
        if self._left:
            return
        if self._index == 0:
            for other, link in self._links.items():
                if other != index:
                    _send(link, {"failure": failure})
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"error: {failure}\n".encode())
        os._exit(1)


def _welcome(share: Share, count: int) -> dict[int, socket.socket]:
    """Waits for the others; a firewall may keep some away."""
    token, deadline = secrets.token_hex(), time.monotonic() + _MEETING
    links: dict[int, socket.socket] = {}
    with socket.create_server(("", 0)) as server:
        share("peers", json.dumps({"port": server.getsockname()[1], "token": token}))
        while len(links) < count - 1:
            server.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                link, _ = server.accept()
            except OSError:
                break
            index = _index_of(link, token, count)
            if index is None:
                link.close()  # a stranger
            else:
                links[index] = link
    return links


def _visit(share: Share, host: str, index: int) -> dict[int, socket.socket]:
    """Goes to process 0, if there is a way."""
    address = json.loads(share("peers"))
    try:
        link = socket.create_connection((host, address["port"]), timeout=_MEETING)
    except OSError:
        return {}
    _send(link, {"token": address["token"], "index": index})
    link.settimeout(None)
    return {0: link}


def _index_of(link: socket.socket, token: str, count: int) -> int | None:
    link.settimeout(_HELLO)
    try:
        hello = json.loads(link.recv(_LINE))
        known = hello["token"] == token and 0 < hello["index"] < count
    except (OSError, ValueError, TypeError, KeyError):
        return None
    link.settimeout(None)
    return hello["index"] if known else None


def _keep_alive(link: socket.socket) -> None:
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _VANISHED:
        if hasattr(socket, name):  # not everywhere
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _send(link: socket.socket, message: dict[str, Any]) -> None:
    try:
        link.sendall(json.dumps(message).encode() + b"\n")
    except OSError:  # it is gone already
        pass
