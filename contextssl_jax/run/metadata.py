"""Metadata for reproducing a run: command, git revision, versions, machine and seed."""

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

from contextssl_jax.run.numerics import check_numerics, numerics
from contextssl_jax.run.workdir import fingerprint
from contextssl_jax.storage.files import append_text
from contextssl_jax.storage.safe_json import read_json_lines

_NAME = "starts.jsonl"
_PACKAGES = (
    *("contextssl-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy"),
    *("tensorflow-datasets", "ml-collections", "array-record", "libtpu", "jax-cuda12-plugin"),
    "jax-cuda13-plugin",
)


def collect_metadata(
    config: ConfigDict, argv: Sequence[str], deterministic: bool
) -> dict[str, Any]:
    """Return the metadata of a start of a run, as JSON values.

    Args:
      config: the options, of which only the fingerprint and the seed are included.
      argv: the command line, including the program's name.
      deterministic: whether --deterministic is set.
    """
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": ["python", "-m", "contextssl_jax.main", *argv[1:]],
        "config": fingerprint(config),
        "seed": config.seed,
        "deterministic": deterministic,
        "numerics": numerics(),
        "git": git_revision(),
        "devices": device_summary(),
        "processes": jax.process_count(),
        "host": socket.gethostname(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": _versions(),
    }


def append_run_metadata(workdir: epath.Path, metadata: dict[str, Any]) -> None:
    """Append the metadata of a start to <workdir>/starts.jsonl."""
    append_text(workdir / _NAME, json.dumps(metadata) + "\n")


def read_starts(workdir: epath.Path) -> list[dict[str, Any]]:
    """Return the metadata of all starts, oldest first, without damaged lines."""
    return read_json_lines(workdir / _NAME)


def check_recorded_numerics(workdir: epath.Path) -> None:
    """Compare the settings of JAX and XLA with those of the run's first start; see check_numerics.

    Raises:
      UserError: random numbers or types would be different ones.
    """
    if starts := read_starts(workdir):
        check_numerics(str(workdir), starts[0].get("numerics"))


def device_summary() -> str:
    """Return the number and kind of the devices of all processes, such as "8 x NVIDIA H200"."""
    kind = jax.devices()[0].device_kind
    if kind == "cpu":
        kind = f"cpu ({_processor()})"
    return f"{jax.device_count()} x {kind}"


@functools.cache
def git_revision() -> str | None:
    """Return the commit of the code, with "+changes" if files differ; None outside git.

    An installed package may be in a repository that does not have its files.
    """
    package = Path(__file__).parent.parent
    is_tracked = _git(package, "ls-files", "--error-unmatch", "__init__.py") is not None
    commit = _git(package, "rev-parse", "HEAD") if is_tracked else None
    if commit is None:
        return None
    return commit + ("+changes" if _git(package, "status", "--porcelain", "--", ".") else "")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        models = (line for line in lines if line.startswith("model name"))
        return next(models).partition(":")[2].strip()
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
