"""XLA's compilation cache in the user's cache folder.

Entries are executable code, so that the folder must be this user's alone. It is keyed by jaxlib's
version and the processor; JAX adds the program, its devices and XLA's flags.
"""

import hashlib
import logging
import os
import platform
import stat
import warnings
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import jax
import jaxlib

from contextssl_jax.errors import UserError, expand_home

_log = logging.getLogger(__name__)

_OWN_SETTINGS = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")
_MAX_BYTES = 1 << 30  # of all versions and processors
_ZLIB = b"\x78"  # first byte of entries that JAX compresses without zstandard
_STAMP = "verified"  # file, modified when entries were last verified
_CPU_INFO = Path("/proc/cpuinfo")


def enable_compilation_cache(enabled: bool, environ: Mapping[str, str]) -> None:
    """Keep compiled programs on disk for later runs of this user.

    Settings of JAX's own cache in the environment take precedence. A folder that is not safe or not
    writable is one warning, and programs are then compiled anew.

    Args:
      enabled: False disables the cache, also that of the environment.
      environ: environment variables.
    """
    if not enabled:
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if any(name in environ for name in _OWN_SETTINGS):
        return
    try:
        root = _cache_root(environ)
        folder = root / f"{jaxlib.__version__}-{_processor()}"
        for path in (root.parent, root, folder):
            _make_private(path)
        _remove_unreadable(folder)
        _remove_oldest(root, _MAX_BYTES)
    except (OSError, RuntimeError, UserError) as error:
        _log.warning(
            "compilation cache: not available (%s). Programs are compiled anew. Set"
            " XDG_CACHE_HOME to a folder of your own, or pass --nocompilation_cache.",
            error,
        )
        return
    # JAX warns of an entry that it cannot read or write, and compiles the program.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _cache_root(environ: Mapping[str, str]) -> Path:
    """Return the folder of all versions; relative paths in XDG_CACHE_HOME are invalid."""
    base = Path(environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        base = Path(expand_home("~/.cache", "XDG_CACHE_HOME"))
    return base / "contextssl_jax" / "xla"


def _processor() -> str:
    """Return the architecture, and a digest of the processor's model and features."""
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:
        lines = []
    names = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    known = sorted({line for line in lines if line.partition("\t")[0].strip() in names})
    text = "\n".join(known) or platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _make_private(folder: Path) -> None:
    """Make a folder that only this user may access, or check the existing one.

    Raises:
      OSError: it cannot be made.
      RuntimeError: it is a link or no folder, belongs to another user, or others may write to it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise RuntimeError(f"{folder} is not a folder")
    if status.st_uid != os.geteuid():
        raise RuntimeError(f"{folder} belongs to another user")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise RuntimeError(f"{folder} is writable by other users")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} is not writable")


def _remove_unreadable(folder: Path) -> None:
    """Remove entries that a killed process has written in part; JAX would never replace them.

    Only entries since the last call are read.
    """
    stamp = folder / _STAMP
    since = stamp.stat().st_mtime if stamp.exists() else 0.0
    entries = list(folder.glob("*-cache"))
    stamp.touch()
    for path in entries:
        with suppress(FileNotFoundError):  # another process has removed it
            if path.stat().st_mtime >= since and not _is_readable(path.read_bytes()):
                path.unlink()


def _is_readable(content: bytes) -> bool:
    if not content.startswith(_ZLIB):
        return bool(content)
    try:
        zlib.decompress(content)
    except zlib.error:
        return False
    return True


def _remove_oldest(root: Path, max_bytes: int) -> None:
    """Remove the least recently used entries until the rest has at most the given size."""
    entries = []
    for path in root.glob("*/*-cache"):
        with suppress(FileNotFoundError):  # another process has removed it
            status = path.stat()
            entries.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    excess = sum(size for _, size, _ in entries) - max_bytes
    for _, size, path in sorted(entries):
        if excess <= 0:
            return
        path.unlink(missing_ok=True)
        excess -= size
