"""A run's folder belongs to one run at a time: a lock that a dead run cannot keep.

On the machine of the lock's holder its process tells whether it lives; from elsewhere its beat
does, which the holder renews.
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
from contextssl_jax.storage.paths import error_reason, io_errors, is_remote
from contextssl_jax.storage.safe_json import read_json, truncate

_log = logging.getLogger(__name__)
_NAME = "lock.json"
_BEAT, _WATCH = 10.0, 35.0  # seconds between beats; that a lock from elsewhere is watched for one


class Lock:
    """Holds a folder for this process, from `with` to its end."""

    def __init__(self, workdir: epath.Path) -> None:
        """Locks nothing yet."""
        self._file, self._end = workdir / _NAME, threading.Event()
        self._holder: dict[str, Any] = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "since": datetime.now().astimezone().isoformat(timespec="seconds"),
            "machine": _machine(),
            "started": _started(os.getpid()),
            "token": secrets.token_hex(8),
        }

    def __enter__(self) -> "Lock":
        """Takes the lock, over from a dead run if need be.

        Raises:
          UserError: a live run holds it, or the folder cannot be written.
        """
        try:
            while not self._create():
                held = _read(self._file)
                if held is not None and _alive(self._file, held):
                    raise UserError(
                        f"--workdir: {self._file.parent} is in use by {_name(held)}, since"
                        f" {truncate(held['since'])}; wait for its end, or choose another --workdir"
                    )
                self._clear(held)
        except io_errors() as error:
            raise UserError(
                f"--workdir: cannot use {self._file.parent} ({error_reason(error)})"
            ) from error
        threading.Thread(target=self._renew, name="lock", daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        with contextlib.suppress(*io_errors()):
            if self._ours():
                self._file.unlink()

    def check(self) -> None:
        """Makes sure that the lock is still this run's, before it writes what another run would.

        Raises:
          UserError: another run took it over while this one was suspended.
        """
        if not self._ours():
            held = _read(self._file)
            taken = f"was taken over by {_name(held)}" if held else f"has lost its {_NAME}"
            raise UserError(f"--workdir: {self._file.parent} {taken}; this run ends")

    def _create(self) -> bool:
        """Makes the lock's file, if there is none."""
        text = json.dumps(self._holder | {"beat": 0}) + "\n"
        if is_remote(self._file):  # a bucket: the last to write has it
            if not self._file.exists():
                self._file.write_text(text)
                time.sleep(1)
            return self._ours()
        try:
            with Path(self._file).open("x") as file:
                file.write(text)
        except FileExistsError:
            return False
        return True

    def _clear(self, held: dict[str, Any] | None) -> None:
        """Takes a dead run's lock away, unless another run is about to, or has."""
        taking = self._file.with_name(f"{_NAME}.taking")
        if not is_remote(taking):
            try:
                Path(taking).open("x").close()
            except FileExistsError:
                time.sleep(0.1)
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - Path(taking).stat().st_mtime > _WATCH:  # died over it
                        taking.unlink()
                return
        if _read(self._file) == held:
            self._file.unlink(missing_ok=True)
            what = _name(held) if held else "an unknown process"
            _log.info("%s: taken over from %s, which is dead", self._file.parent, what)
        taking.unlink(missing_ok=True)

    def _renew(self) -> None:
        beat = 0
        while not self._end.wait(_BEAT):
            beat += 1
            with contextlib.suppress(*io_errors()):  # such as a full disk: the run itself will tell
                if self._ours():
                    new = self._file.with_name(f"{_NAME}.{self._holder['token']}")
                    new.write_text(json.dumps(self._holder | {"beat": beat}) + "\n")
                    new.replace(self._file)

    def _ours(self) -> bool:
        held = _read(self._file)
        return held is not None and held.get("token") == self._holder["token"]


def lock_holder(workdir: epath.Path) -> str | None:
    """Names the live process that holds a folder; None if none does.

    A lock from another machine is watched for a beat, for up to 35 seconds.
    """
    file = workdir / _NAME
    held = _read(file)
    return _name(held) if held is not None and _alive(file, held) else None


def _read(file: epath.Path) -> dict[str, Any] | None:
    """Reads a lock; None if it is gone or stays unreadable."""
    for _ in range(3):
        try:
            held = read_json(file)
            if {"host", "process", "since"} <= held.keys():
                return held
        except (FileNotFoundError, IsADirectoryError):
            return None
        except (ValueError, AttributeError):  # perhaps still being written
            pass
        time.sleep(0.5)
    return None


def _alive(file: epath.Path, held: dict[str, Any]) -> bool:
    if held.get("machine") == _machine():
        return _started(held["process"]) == held.get("started") is not None
    _log.info("%s: is held by %s; waiting for a sign of its life", file.parent, _name(held))
    deadline = time.monotonic() + _WATCH
    while time.monotonic() < deadline:
        time.sleep(1)
        now = _read(file)
        if now != held:
            return now is not None
    return False


def _name(held: dict[str, Any]) -> str:
    return f"process {truncate(held['process'])} on {truncate(held['host'])}"


def _machine() -> str:
    """Names what process numbers are unique in: a boot of a machine, and a container on it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux
        return socket.gethostname()


def _started(process: int) -> str | None:
    """When a process of this machine started, as the system counts; None if there is none such."""
    try:
        # The name before it, in parentheses, may hold spaces.
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
