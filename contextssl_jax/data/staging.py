"""Data in buckets, copied once to this machine: readers of records and images want files."""

import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from multiprocessing.pool import ThreadPool
from pathlib import Path

import fsspec
from tqdm import tqdm

from contextssl_jax.errors import UserError
from contextssl_jax.storage.files import has_size
from contextssl_jax.storage.paths import error_reason, io_errors, is_remote, resolve_path

_log = logging.getLogger(__name__)
_AT_ONCE = 8  # files that are copied


def staged(address: str, option: str, part: str = "") -> str:
    """Returns where on this machine a folder's files are; what is not yet there is copied.

    A file that is there with the same size is not copied again, and one that has left the bucket
    is taken away. Several processes may call this at once: one copies, the others wait.

    Args:
      address: of the folder; one on disk is returned as it is.
      option: that states it.
      part: folder within it that is needed; "" is all.

    Raises:
      UserError: the bucket cannot be read, holds no such folder, or the disk is full.
    """
    if not is_remote(address):
        return address
    resolve_path(address, option)
    address = address.rstrip("/")
    folder = cache() / hashlib.sha256(address.encode()).hexdigest()[:16]
    try:
        with _alone(folder):
            _copy(f"{address}/{part}".rstrip("/"), folder / part, folder.with_suffix(".new"))
    except UserError as error:
        raise UserError(f"{option}: {error}") from error
    except Exception as error:
        if not isinstance(error, (*io_errors(), ValueError, RuntimeError)):
            raise
        raise UserError(
            f"{option}: cannot copy {address} to {folder} ({error_reason(error)})"
        ) from error
    return str(folder)


def cache() -> Path:
    """Returns the folder that copies are kept in: below XDG_CACHE_HOME, else ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "contextssl_jax"


def _copy(address: str, folder: Path, incoming: Path) -> None:
    """Makes the folder's files those of the address; raises what reading and writing raises."""
    system, root = fsspec.core.url_to_fs(address)
    sizes = {
        _inside(name.removeprefix(root).removeprefix("/")): int(told["size"])
        for name, told in system.find(root, detail=True).items()
        if not name.endswith("/")  # stands for a folder
    }
    if not sizes:
        raise UserError(f"there is no folder {address}, or nothing in it")
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        if path.relative_to(folder).as_posix() not in sizes:
            path.unlink()
    lacking = {name: size for name, size in sizes.items() if not has_size(folder / name, size)}
    if not lacking:
        return
    shutil.rmtree(incoming, ignore_errors=True)  # of a copy that was cut short
    incoming.mkdir()
    _check_space(incoming, lacking)
    _log.info("copying %d files of %s to %s", len(lacking), address, folder)
    bar = tqdm(total=sum(lacking.values()), unit="B", unit_scale=True, desc="copy", disable=None)

    def one(name: str) -> int:
        handle, new = tempfile.mkstemp(dir=incoming)
        os.close(handle)
        system.get_file(f"{root}/{name}", new)
        if os.path.getsize(new) != lacking[name]:
            raise OSError(f"{name} came only in part, or was changed meanwhile")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(new, folder / name)
        return lacking[name]

    with closing(bar), ThreadPool(_AT_ONCE) as pool:
        for size in pool.imap_unordered(one, lacking):
            bar.update(size)
    shutil.rmtree(incoming, ignore_errors=True)


def _inside(name: str) -> str:
    """Returns an object's name, if as a path it leads nowhere else."""
    if any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name:
        raise UserError(f"the bucket has an object of the name {name!r}, which is no file's")
    return name


def _check_space(folder: Path, lacking: Mapping[str, int]) -> None:
    need, free = sum(lacking.values()), shutil.disk_usage(folder).free
    if need > free:
        raise UserError(
            f"its copy needs {need / 1e9:.1f} GB, and {folder.parent} has {free / 1e9:.1f} GB free;"
            " set XDG_CACHE_HOME to a larger disk"
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits until no other process of this machine copies to the folder, and makes it."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder.with_suffix(".lock"), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # a process that is killed lets go of it
        yield
    finally:
        os.close(handle)
