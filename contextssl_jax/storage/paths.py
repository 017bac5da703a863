"""Paths on disk and in Google Cloud Storage buckets (gs://...).

Object storage has no folders: they are not created, an empty folder does not exist, and moving a
folder copies its objects.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import fsspec
from etils import epath

from contextssl_jax.errors import UserError, expand_home

_SCHEME, _COMMITTED = "gs://", "commit_success.txt"
_PACKAGES = ("gcsfs", "google.cloud.storage")  # Orbax and TensorBoard use the second
# I/O errors of remote storage, by module. The modules are not imported here, which is slow.
_REMOTE_ERRORS = (
    ("gcsfs.retry", "HttpError"),
    ("aiohttp", "ClientError"),
    ("google.auth.exceptions", "GoogleAuthError"),
)

# Access buckets in the same way whether or not TensorFlow is installed.
os.environ.setdefault("EPATH_USE_TF", "false")
# Cached listings hide the writes of other processes.
fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Return True for a path in remote storage."""
    return "://" in str(path)


def resolve_path(path: str, option: str) -> epath.Path:
    """Return the path of a folder or file on disk or in a bucket.

    Args:
      path: a local path, of which a leading ~ is expanded; or gs://BUCKET/FOLDER.
      option: the option that sets the path, for the error message.

    Raises:
      UserError: the scheme is not supported, the packages for remote storage are missing, or ~
        cannot be expanded.
    """
    if is_remote(path):
        if not path.startswith(_SCHEME):
            raise UserError(
                f"{option}: {path} is not a supported location. Use a local folder or"
                " gs://BUCKET/FOLDER."
            )
        if not all(map(is_installed, _PACKAGES)):
            raise UserError(
                f"{option}: {path} requires packages that are not installed. Run: pip install"
                " 'contextssl-jax[gcs]'"
            )
    return epath.Path(expand_home(path, option))


def is_installed(module: str) -> bool:
    """Return True if a module can be imported, without importing it."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is not installed
        return False


def absolute_path(path: epath.Path) -> epath.Path:
    """Return the absolute path. A remote path is always absolute."""
    return path if is_remote(path) else path.resolve()


def list_folder(folder: epath.Path) -> list[epath.Path]:
    """Return the content of a folder; an empty list if it does not exist."""
    return list(folder.iterdir()) if folder.exists() else []


def list_numbered(folder: epath.Path) -> list[epath.Path]:
    """Return the paths in a folder whose names are canonical decimal integers, by number."""
    names = [path.name for path in list_folder(folder)]
    numbers = sorted(int(name) for name in names if re.fullmatch("0|[1-9][0-9]{0,17}", name))
    return [folder / str(number) for number in numbers]


def is_complete(folder: epath.Path) -> bool:
    """Return True if Orbax has completely written a checkpoint.

    A local folder is renamed once it is complete; a remote one has a commit marker.

    Args:
      folder: the checkpoint under its final name.
    """
    return not is_remote(folder) or (folder / _COMMITTED).exists()


def move_folder(folder: epath.Path, target: epath.Path) -> None:
    """Move a folder to a path that does not exist."""
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
    """Return the exception types of file I/O, on disk and in remote storage if it is in use."""
    modules = ((sys.modules.get(module), name) for module, name in _REMOTE_ERRORS)
    return OSError, *(getattr(module, name) for module, name in modules if module is not None)


def error_reason(error: Exception) -> str:
    """Return the message of an I/O error as part of a line."""
    message = getattr(error, "strerror", None) or str(error)
    return " ".join(message.split())[:200] or type(error).__name__


def workdir_error(folder: str | os.PathLike[str], error: Exception) -> UserError:
    """Return the UserError for an I/O error in a workdir."""
    return UserError(
        f"--workdir: cannot use {folder} ({error_reason(error)}). Choose a readable and writable"
        " folder."
    )


@contextmanager
def reraise_io_errors(folder: str) -> Iterator[None]:
    """Re-raise I/O errors of a remote workdir as UserError.

    Args:
      folder: the workdir; errors are not changed if it is local.

    Raises:
      UserError: the remote workdir cannot be read or written.
    """
    try:
        yield
    except io_errors() as error:
        if not is_remote(folder):
            raise
        raise workdir_error(folder, error) from error
