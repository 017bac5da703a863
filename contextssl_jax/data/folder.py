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
from contextssl_jax.data.staging import stage_folder
from contextssl_jax.data.stored import dummy_stored_dataset, stored_dataset
from contextssl_jax.errors import UserError

_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_MAX_NAMED = 3  # files named in a warning

_log = logging.getLogger(__name__)


def build(config: ConfigDict) -> Dataset:
    """Build the data set from `folder`, `groups`, `unconditioned_transforms` and their sections.

    Raises:
      UserError: the folder does not exist, or a split has no images.
    """
    options = config.folder
    root, names = find_images(options.path)
    labels = class_labels(names) if options.labels else None
    in_test = np.array([is_in_test_split(name, options.test) for name in names])
    order = np.argsort(in_test, kind="stable")  # the train split first
    images, read = read_images([root / names[i] for i in order], options.side)
    order = order[read]
    _warn_skipped(sorted(set(names) - {names[i] for i in order}), len(names))
    train = len(order) - int(in_test[order].sum())
    splits = {}
    for split, part in (("train", slice(train)), ("test", slice(train, None))):
        if not len(images[part]):
            raise UserError(
                f"--config.folder.test: {options.test} of {len(order)} images leave the {split}"
                " split empty. Change the fraction, or add images."
            )
        splits[split] = images[part], None if labels is None else labels[order[part]]
    sizes = ", ".join(f"{name} {len(part)}" for name, (part, _) in splits.items())
    _log.info("%d images in %s: %s", len(order), root, sizes)
    return stored_dataset("folder", config, splits, *channel_statistics(images[:train]))


def find_images(path: str | None) -> tuple[Path, list[str]]:
    """Find all images below a folder, by their file names.

    Hidden files, hidden folders and symbolic links are skipped: the target of a link is outside the
    folder, or would be found twice.

    Returns:
      The folder, and the files' paths relative to it, separated by "/", sorted.

    Raises:
      UserError: the path is not set, is not a folder, or has no images.
    """
    if not path:
        raise UserError("--config.folder.path: not set. Set it to a folder of images.")
    root = Path(os.path.expanduser(stage_folder(path, "--config.folder.path")))
    try:
        names = sorted(_walk(root))
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
        raise UserError(
            f"--config.folder.path: cannot read {reason}. Use a readable folder."
        ) from error
    if not names:
        kinds = ", ".join(suffix.removeprefix(".") for suffix in _SUFFIXES)
        raise UserError(
            f"--config.folder.path: no images in {root}. Add files of the types {kinds}; hidden"
            " files and links are skipped."
        )
    return root, names


def is_in_test_split(name: str, fraction: float) -> bool:
    """Return whether a file is in the test split, by its relative path alone."""
    digest = hashlib.sha256(os.fsencode(name)).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def class_labels(names: Sequence[str]) -> np.ndarray:
    """Return each file's class, the index of its first folder among all sorted ones, int32 [N].

    Raises:
      UserError: a file is not in a folder.
    """
    folders = [name.split("/")[0] if "/" in name else "" for name in names]
    if "" in folders:
        name = names[folders.index("")]
        raise UserError(
            f"--config.folder.labels: {name} is not in a folder that names its class. Move it to"
            " one."
        )
    return np.unique(folders, return_inverse=True)[1].astype(np.int32)


def read_images(files: Sequence[Path], side: int) -> tuple[np.ndarray, np.ndarray]:
    """Read images as squares, in threads.

    Returns:
      images: uint8 [n, side, side, 3], of the readable files.
      read: their indices in files, ascending, int [n].

    Raises:
      UserError: no file is readable.
    """
    images = np.empty((len(files), side, side, 3), np.uint8)
    read: list[int] = []
    bar = tqdm(total=len(files), desc="folder", unit=" images", disable=None)
    with bar, ThreadPool() as pool:
        for index, image in enumerate(pool.imap(partial(read_image, side=side), files)):
            if image is not None:
                images[len(read)] = image
                read.append(index)
            bar.update()
    if not read:
        raise UserError(
            f"--config.folder.path: none of {len(files)} files could be read as images. Use others."
        )
    return images[: len(read)], np.array(read)


def read_image(file: Path, side: int) -> np.ndarray | None:
    """Read an image upright, as uint8 [side, side, 3]; None if the file is not readable."""
    try:
        with Image.open(file) as image:
            image.draft(None, (2 * side, 2 * side))  # large JPEGs decode several times faster
            return square(rgb(ImageOps.exif_transpose(image)), side)
    except Exception:  # PIL raises many types for damaged files
        return None


def _walk(root: Path) -> Iterator[str]:
    """Iterate over the relative paths of the images below a folder; raises OSError."""

    def fail(error: OSError) -> None:
        raise error

    for folder, folders, files in os.walk(root, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(folder, name)
            image = path.suffix.lower() in _SUFFIXES and not name.startswith(".")
            if image and stat.S_ISREG(path.lstat().st_mode):
                yield path.relative_to(root).as_posix()


def _warn_skipped(skipped: Sequence[str], total: int) -> None:
    if skipped:
        first = ", ".join(skipped[:_MAX_NAMED]) + (", ..." if len(skipped) > _MAX_NAMED else "")
        message = "skipped %d of %d files that cannot be read as images: %s"
        _log.warning(message, len(skipped), total, first)


def _dummy(config: ConfigDict) -> Dataset:
    return dummy_stored_dataset(config, config.folder.side)


SPEC = DatasetSpec(build, _dummy)
