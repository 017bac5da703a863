"""What one needs to repeat a run: its command, code, versions, machine and seed, in the workdir."""

import functools
import json
import platform
import socket
import subprocess
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from contextssl_jax.data import resume_free_options
from contextssl_jax.run.workdir import fingerprint
from contextssl_jax.storage.files import append_text

_NAME = "starts.jsonl"
_PACKAGES = (
    *("contextssl-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy"),
    *("tensorflow-datasets", "ml-collections", "array-record", "libtpu", "jax-cuda12-plugin"),
    "jax-cuda13-plugin",
)


def collect_metadata(
    config: ConfigDict, argv: Sequence[str], deterministic: bool
) -> dict[str, Any]:
    """Says what is about to run, as JSON knows it.

    Args:
      config: the options; config.json beside the record states them all.
      argv: the command line, the program's name first.
      deterministic: whether --deterministic was given.
    """
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": ["python", "-m", "contextssl_jax.main", *argv[1:]],
        "config": fingerprint(config, resume_free_options()),
        "seed": config.seed,
        "deterministic": deterministic,
        "git": git_revision(),
        "devices": device_summary(),
        "processes": jax.process_count(),
        "host": socket.gethostname(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": _versions(),
    }


def append_run_metadata(workdir: epath.Path, record: dict[str, Any]) -> None:
    """Adds a start of the run to <workdir>/starts.jsonl."""
    append_text(workdir / _NAME, json.dumps(record) + "\n")


def device_summary() -> str:
    """Names the devices of all processes, such as "8 x NVIDIA H200"."""
    kind = jax.devices()[0].device_kind
    if kind == "cpu":
        kind = f"cpu ({_processor()})"
    return f"{jax.device_count()} x {kind}"


@functools.cache
def git_revision() -> str | None:
    """Names the commit that the code is of, with "+changes" if files differ; None outside git."""
    folder = Path(__file__).parent.parent  # the package
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return commit + ("+changes" if _git(folder, "status", "--porcelain", "--", ".") else "")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(x.partition(":")[2].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
