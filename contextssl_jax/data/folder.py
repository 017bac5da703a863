"""A folder of images, with or without classes, in memory."""

import hashlib
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageOps
from tqdm import tqdm

from contextssl_jax.data.dataset import Dataset, DatasetSpec
from contextssl_jax.data.images import channel_statistics, rgb, square
from contextssl_jax.data.staging import staged
from contextssl_jax.data.stored import dummy_stored_dataset, stored_dataset
from contextssl_jax.errors import UserError

_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_NAMED = 3  # files that a warning names

_log = logging.getLogger(__name__)


def build(config: ConfigDict) -> Dataset:
    """Builds the data set from the sections `folder` and the groups', `groups` and `nuisances`.

    Raises:
      UserError: there is no such folder, or its images do not make two splits.
    """
    options = config.folder
    if not 0 < options.test < 1:
        raise UserError(f"--config.folder.test: {options.test} is no share between 0 and 1")
    root, names = find_images(options.path)
    labels = class_labels(names) if options.labels else None
    in_test = np.array([held_out(name, options.test) for name in names])
    order = np.argsort(in_test, kind="stable")  # the train split first
    images, read = read_images([root / names[i] for i in order], options.side)
    order = order[read]
    _warn(sorted(set(names) - {names[i] for i in order}), len(names))
    train = len(order) - int(in_test[order].sum())
    splits = {}
    for split, part in (("train", slice(train)), ("test", slice(train, None))):
        if not len(images[part]):
            raise UserError(
                f"--config.folder.test: {options.test} of {len(order)} images leave the {split}"
                " split empty; change the share, or add images"
            )
        splits[split] = images[part], None if labels is None else labels[order[part]]
    sizes = ", ".join(f"{name} {len(part)}" for name, (part, _) in splits.items())
    _log.info("%d images in %s: %s", len(order), root, sizes)
    return stored_dataset("folder", config, splits, *channel_statistics(images[:train]))


def find_images(path: str | None) -> tuple[Path, list[str]]:
    """Finds the images anywhere below a folder, by their file names.

    Hidden files and folders are left out, and symbolic links: what they lead to lies elsewhere, or
    would be found twice.

    Returns:
      The folder, and the files' paths relative to it, written with "/", in order.

    Raises:
      UserError: no path, no folder there, or no images in it.
    """
    if not path:
        raise UserError("--config.folder.path: name a folder of images")
    root = Path(os.path.expanduser(staged(path, "--config.folder.path")))
    try:
        names = sorted(_walk(root))
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
        raise UserError(f"--config.folder.path: cannot read {reason}") from error
    if not names:
        kinds = ", ".join(suffix.removeprefix(".") for suffix in _SUFFIXES)
        raise UserError(
            f"--config.folder.path: no images in {root} ({kinds}; hidden files and links aside)"
        )
    return root, names


def held_out(name: str, share: float) -> bool:
    """Says whether a file is in the test split, by its relative path: no other file matters."""
    digest = hashlib.sha256(os.fsencode(name)).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def class_labels(names: Sequence[str]) -> np.ndarray:
    """Returns each file's class, the place of its first folder among all such in order, int32 [N].

    Raises:
      UserError: a file lies in no folder.
    """
    folders = [name.split("/")[0] if "/" in name else "" for name in names]
    if "" in folders:
        name = names[folders.index("")]
        raise UserError(
            f"--config.folder.labels: {name} lies in no folder that names its class; move it to one"
        )
    return np.unique(folders, return_inverse=True)[1].astype(np.int32)


def read_images(files: Sequence[Path], side: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads images, a few at a time in threads, as squares.

    Returns:
      images: uint8 [n, side, side, 3], of those that could be read.
      read: their places in files, rising, int [n].

    Raises:
      UserError: none could be read.
    """
    images = np.empty((len(files), side, side, 3), np.uint8)
    read: list[int] = []
    bar = tqdm(total=len(files), desc="folder", unit=" images", disable=None)
    with bar, ThreadPool() as pool:
        for place, image in enumerate(pool.imap(partial(read_image, side=side), files)):
            if image is not None:
                images[len(read)] = image
                read.append(place)
            bar.update()
    if not read:
        raise UserError(f"--config.folder.path: none of {len(files)} files could be read as images")
    return images[: len(read)], np.array(read)


def read_image(file: Path, side: int) -> np.ndarray | None:
    """Reads an image upright, as uint8 [side, side, 3]; None if the file is none, or broken."""
    try:
        with Image.open(file) as image:
            image.draft(None, (2 * side, 2 * side))  # decodes large JPEGs several times faster
            return square(rgb(ImageOps.exif_transpose(image)), side)
    except Exception:  # what PIL raises for broken files varies without end
        return None


def _walk(root: Path) -> Iterator[str]:
    """Yields the relative paths of the images below a folder; raises OSError."""

    def fail(error: OSError) -> None:
        raise error

    for folder, folders, files in os.walk(root, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(folder, name)
            image = path.suffix.lower() in _SUFFIXES and not name.startswith(".")
            if image and stat.S_ISREG(path.lstat().st_mode):
                yield path.relative_to(root).as_posix()


def _warn(left_out: Sequence[str], total: int) -> None:
    if left_out:
        first = ", ".join(left_out[:_NAMED]) + (", ..." if len(left_out) > _NAMED else "")
        message = "left out %d of %d files that cannot be read as images: %s"
        _log.warning(message, len(left_out), total, first)


def _dummy(config: ConfigDict) -> Dataset:
    return dummy_stored_dataset(config, config.folder.side)


SPEC = DatasetSpec(build, _dummy, resume_free=("folder.path",))
