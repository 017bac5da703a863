"""Staging: data in buckets are copied once to this machine, since readers need local files."""

import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.pool import ThreadPool
from pathlib import Path

import fsspec

from contextssl_jax.errors import UserError, expand_home
from contextssl_jax.progress import task
from contextssl_jax.storage.files import has_size
from contextssl_jax.storage.paths import error_reason, io_errors, is_remote, resolve_path

_log = logging.getLogger(__name__)
_AT_ONCE = 8  # files that are copied concurrently


def stage_folder(address: str, option: str, part: str = "") -> str:
    """Return the local path of a folder, after copying the files that are missing locally.

    A local file of the same size is not copied again, and one that is no longer in the bucket is
    deleted. Several processes may call this concurrently: one copies, the others wait.

    Args:
      address: path or URL of the folder; of a local path, only ~ is expanded.
      option: name of its option, for error messages.
      part: subfolder that is needed; "" for all.

    Raises:
      UserError: the bucket cannot be read, has no such folder, or the disk is full.
    """
    path = resolve_path(address, option)
    if not is_remote(address):
        return str(path)
    address = address.rstrip("/")
    folder = cache_folder() / hashlib.sha256(address.encode()).hexdigest()[:16]
    try:
        with _locked(folder):
            _copy(f"{address}/{part}".rstrip("/"), folder / part, folder.with_suffix(".new"))
    except UserError as error:
        raise UserError(f"{option}: {error}") from error
    except Exception as error:
        if not isinstance(error, (*io_errors(), ValueError, RuntimeError)):
            raise
        raise UserError(
            f"{option}: cannot copy {address} to {folder} ({error_reason(error)}). Start again."
        ) from error
    return str(folder)


def cache_folder() -> Path:
    """Return the folder of the copies, below XDG_CACHE_HOME or else ~/.cache.

    Raises:
      UserError: there is no home folder.
    """
    folder = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(expand_home(folder, "XDG_CACHE_HOME")) / "contextssl_jax"


def _copy(address: str, folder: Path, incoming: Path) -> None:
    """Synchronize the folder with the address; raises the errors of reading and writing."""
    system, root = fsspec.core.url_to_fs(address)
    sizes = {
        _checked_name(name.removeprefix(root).removeprefix("/")): int(info["size"])
        for name, info in system.find(root, detail=True).items()
        if not name.endswith("/")  # marks a folder
    }
    if not sizes:
        raise UserError(f"there is no folder {address}, or it is empty. Use another.")
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        if path.relative_to(folder).as_posix() not in sizes:
            path.unlink()
    missing = {name: size for name, size in sizes.items() if not has_size(folder / name, size)}
    if not missing:
        return
    shutil.rmtree(incoming, ignore_errors=True)  # of an interrupted copy
    incoming.mkdir()
    _check_space(incoming, missing)
    _log.info("copying %d files of %s to %s", len(missing), address, folder)

    def copy_file(name: str) -> int:
        handle, new = tempfile.mkstemp(dir=incoming)
        os.close(handle)
        system.get_file(f"{root}/{name}", new)
        if os.path.getsize(new) != missing[name]:
            raise OSError(f"{name} was copied only in part, or has changed meanwhile")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(new, folder / name)
        return missing[name]

    copying = task("copying", sum(missing.values()), "B")
    with copying as progress, ThreadPool(_AT_ONCE) as pool:
        for size in pool.imap_unordered(copy_file, missing):
            progress.advance(size)
    shutil.rmtree(incoming, ignore_errors=True)


def _checked_name(name: str) -> str:
    """Return an object's name; raises UserError if, as a path, it leaves the folder."""
    if any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name:
        raise UserError(f"the bucket has an object {name!r}, which is not a file name. Rename it.")
    return name


def _check_space(folder: Path, missing: Mapping[str, int]) -> None:
    need, free = sum(missing.values()), shutil.disk_usage(folder).free
    if need > free:
        raise UserError(
            f"its copy needs {need / 1e9:.1f} GB, but {folder.parent} has {free / 1e9:.1f} GB free."
            " Set XDG_CACHE_HOME to a larger disk."
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Create the folder and hold its lock; waits while another process copies to it."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder.with_suffix(".lock"), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # released when the process ends, even if killed
        yield
    finally:
        os.close(handle)
