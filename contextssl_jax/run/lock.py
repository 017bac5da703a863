"""A lock on a workdir, so that one run at a time uses it. The lock of a dead run is taken over.

On the machine of the holder, the lock is valid while the holder's process exists. On other
machines, it is valid while its heartbeat, which the holder writes periodically, changes.
"""

import contextlib
import json
import logging
import os
import secrets
import socket
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from etils import epath

from contextssl_jax.errors import UserError
from contextssl_jax.storage.paths import io_errors, is_remote, workdir_error
from contextssl_jax.storage.safe_json import read_json, truncate

_log = logging.getLogger(__name__)
_NAME = "lock.json"
_HEARTBEAT_INTERVAL = 10.0  # seconds
_HEARTBEAT_TIMEOUT = 35.0  # seconds without a heartbeat until a lock of another machine is stale
_HEARTBEAT_CHECK = 1.0  # seconds between two checks for a heartbeat
_WRITE_TIME = 0.5  # seconds that another process may take to write a lock file


class Lock:
    """A context manager that holds the lock of a workdir."""

    def __init__(self, workdir: epath.Path) -> None:
        """Create the lock without acquiring it."""
        self._file, self._released = workdir / _NAME, threading.Event()
        self._holder: dict[str, Any] = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "since": datetime.now().astimezone().isoformat(timespec="seconds"),
            "machine": _machine_id(),
            "started": _start_time(os.getpid()),
            "token": secrets.token_hex(8),
        }

    def __enter__(self) -> "Lock":
        """Acquire the lock. Take it over if its holder is dead.

        Raises:
          UserError: a live run holds the lock, or the workdir is not writable.
        """
        try:
            while not self._create():
                held = _read_lock(self._file)
                if held is not None and _is_alive(self._file, held):
                    raise UserError(
                        f"--workdir: {self._file.parent} is in use by {_describe(held)} since"
                        f" {truncate(held['since'])}. Wait for that run to finish, or use a"
                        " different --workdir."
                    )
                self._remove_stale(held)
        except io_errors() as error:
            raise workdir_error(self._file.parent, error) from error
        threading.Thread(target=self._write_heartbeats, name="lock", daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._released.set()
        with contextlib.suppress(*io_errors()):
            if self._is_held():
                self._file.unlink()

    def check(self) -> None:
        """Check that this run still holds the lock, before it writes to the workdir.

        Raises:
          UserError: another run has taken over the lock, while this one was suspended.
        """
        if not self._is_held():
            held = _read_lock(self._file)
            if held:
                problem = f"{self._file.parent} was taken over by {_describe(held)}"
            else:
                problem = f"{self._file} was deleted"
            raise UserError(
                f"--workdir: {problem}, so this run stops. Use a different --workdir for each run."
            )

    def _create(self) -> bool:
        """Create the lock file unless it exists. Return True if this run holds the lock."""
        text = json.dumps(self._holder | {"beat": 0}) + "\n"
        if is_remote(self._file):  # no exclusive creation: the last writer holds the lock
            if not self._file.exists():
                self._file.write_text(text)
                time.sleep(1)
            return self._is_held()
        try:
            with Path(self._file).open("x") as file:
                file.write(text)
        except FileExistsError:
            return False
        return True

    def _remove_stale(self, held: dict[str, Any] | None) -> None:
        """Remove the lock file of a dead run, unless another process is removing it."""
        guard = self._file.with_name(f"{_NAME}.taking")  # held while the lock file is removed
        if not is_remote(guard):
            try:
                Path(guard).open("x").close()
            except FileExistsError:
                time.sleep(0.1)
                with contextlib.suppress(FileNotFoundError):
                    # The process that created the guard has died.
                    if time.time() - Path(guard).stat().st_mtime > _HEARTBEAT_TIMEOUT:
                        guard.unlink()
                return
        if _read_lock(self._file) == held:
            self._file.unlink(missing_ok=True)
            holder = _describe(held) if held else "an unknown process"
            _log.info("%s: took over the lock of %s, which is dead", self._file.parent, holder)
        guard.unlink(missing_ok=True)

    def _write_heartbeats(self) -> None:
        beat = 0
        while not self._released.wait(_HEARTBEAT_INTERVAL):
            beat += 1
            with contextlib.suppress(
                *io_errors()
            ):  # the training loop reports errors such as ENOSPC
                if self._is_held():
                    new = self._file.with_name(f"{_NAME}.{self._holder['token']}")
                    new.write_text(json.dumps(self._holder | {"beat": beat}) + "\n")
                    new.replace(self._file)

    def _is_held(self) -> bool:
        held = _read_lock(self._file)
        return held is not None and held.get("token") == self._holder["token"]


def lock_holder(workdir: epath.Path) -> str | None:
    """Return a description of the live process that holds the lock; None if no process does.

    Waits up to 35 seconds for a heartbeat if the lock is held on another machine.
    """
    file = workdir / _NAME
    held = _read_lock(file)
    return _describe(held) if held is not None and _is_alive(file, held) else None


def _read_lock(file: epath.Path) -> dict[str, Any] | None:
    """Read a lock file. Return None if it is missing or remains invalid."""
    for _ in range(3):
        try:
            held = read_json(file)
            if {"host", "process", "since"} <= held.keys():
                return held
        except (FileNotFoundError, IsADirectoryError):
            return None
        except (ValueError, AttributeError):  # another process may be writing it
            pass
        time.sleep(_WRITE_TIME)
    return None


def _is_alive(file: epath.Path, held: dict[str, Any]) -> bool:
    if held.get("machine") == _machine_id():
        return _start_time(held["process"]) == held.get("started") is not None
    _log.info("%s: locked by %s; waiting for its heartbeat", file.parent, _describe(held))
    deadline = time.monotonic() + _HEARTBEAT_TIMEOUT
    while time.monotonic() < deadline:
        time.sleep(_HEARTBEAT_CHECK)
        now = _read_lock(file)
        if now != held:
            return now is not None
    return False


def _describe(held: dict[str, Any]) -> str:
    return f"process {truncate(held['process'])} on {truncate(held['host'])}"


def _machine_id() -> str:
    """Return an identifier of the boot and the PID namespace, within which PIDs are unique."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return socket.gethostname()


def _start_time(process: int) -> str | None:
    """Return the start time of a process in clock ticks since boot; None if it does not exist.

    Without /proc, where the start time is unknown, returns "running".
    """
    try:
        # Split after the process name, which is in parentheses and may contain spaces.
        return Path(f"/proc/{int(process)}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, ValueError, TypeError, OverflowError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(process, 0)
    except (OSError, TypeError, OverflowError):
        return None
    return "running"
