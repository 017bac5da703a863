"""Folders in buckets (gs://...), and what differs there from folders on a disk.

A bucket holds objects and knows no folders: none can be made, an empty one is not there, and to
move one is to copy what is in it.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import fsspec
from etils import epath

from contextssl_jax.errors import UserError

_SCHEME, _COMMITTED = "gs://", "commit_success.txt"
_PACKAGES = ("gcsfs", "google.cloud.storage")  # the second for Orbax and TensorBoard
# Beside OSError, by their modules, which are slow to import.
_FAULTS = (
    ("gcsfs.retry", "HttpError"),
    ("aiohttp", "ClientError"),
    ("google.auth.exceptions", "GoogleAuthError"),
)

# One way to buckets, with TensorFlow installed or not.
os.environ.setdefault("EPATH_USE_TF", "false")
# Listings that are kept would hide what other processes write.
fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Says whether a path leads out of this machine."""
    return "://" in str(path)


def resolve_path(path: str, option: str) -> epath.Path:
    """Returns a path on disk or in a bucket, by its address.

    Args:
      path: the address.
      option: that states it.

    Raises:
      UserError: it is of another kind, or what reads buckets is not installed.
    """
    if is_remote(path):
        if not path.startswith(_SCHEME):
            raise UserError(f"{option}: {path} is neither a folder nor a bucket's gs://NAME/FOLDER")
        if not all(map(_installed, _PACKAGES)):
            raise UserError(f"{option}: {path} needs pip install 'contextssl-jax[gcs]'")
    return epath.Path(path)


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # not even what it would be in
        return False


def absolute_path(path: epath.Path) -> epath.Path:
    """Returns the same path from the root; a bucket's is so already."""
    return path if is_remote(path) else path.resolve()


def list_folder(folder: epath.Path) -> list[epath.Path]:
    """Returns what a folder holds; nothing where it is not there."""
    return list(folder.iterdir()) if folder.exists() else []


def list_numbered(folder: epath.Path) -> list[epath.Path]:
    """Returns what a folder holds under whole numbers, as they are written, by number."""
    names = [path.name for path in list_folder(folder)]
    numbers = sorted(int(name) for name in names if re.fullmatch("0|[1-9][0-9]{0,17}", name))
    return [folder / str(number) for number in numbers]


def is_complete(folder: epath.Path) -> bool:
    """Says whether Orbax has written a folder to its end: a bucket's bears its name from the start.

    Args:
      folder: that bears its final name.
    """
    return not is_remote(folder) or (folder / _COMMITTED).exists()


def move_folder(folder: epath.Path, target: epath.Path) -> None:
    """Moves a folder with all that is in it to where nothing is."""
    if not is_remote(folder):
        target.parent.mkdir(exist_ok=True)
        folder.rename(target)
        return
    _copy(folder, target)
    folder.rmtree()


def _copy(folder: epath.Path, target: epath.Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            _copy(path, target / path.name)
        else:
            path.copy(target / path.name, overwrite=True)


def io_errors() -> tuple[type[Exception], ...]:
    """Returns the errors of reading and writing files, on disk and in buckets as far as in use."""
    found = ((sys.modules.get(module), name) for module, name in _FAULTS)
    return OSError, *(getattr(module, name) for module, name in found if module is not None)


def error_reason(error: Exception) -> str:
    """Returns what an error of reading or writing says, in a part of a line."""
    told = getattr(error, "strerror", None) or str(error)
    return " ".join(told.split())[:200] or type(error).__name__


@contextmanager
def reraise_io_errors(folder: str) -> Iterator[None]:
    """Turns what a bucket does not do into one line.

    Args:
      folder: of the work; if it is on disk, nothing is changed.

    Raises:
      UserError: a bucket could not be read or written.
    """
    try:
        yield
    except io_errors() as error:
        if not is_remote(folder):
            raise
        raise UserError(f"--workdir: cannot use {folder} ({error_reason(error)})") from error
