"""A folder of images, with or without classes, in memory."""

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.data.dataset import Dataset, DatasetSpec
from contextssl_jax.data.image_files import (
    ImageFiles,
    describe_skipped,
    find_image_files,
    read_images,
)
from contextssl_jax.data.images import channel_statistics
from contextssl_jax.data.staging import stage_folder
from contextssl_jax.data.stored import dummy_stored_dataset, stored_dataset
from contextssl_jax.errors import UserError

_log = logging.getLogger(__name__)


def build(config: ConfigDict) -> Dataset:
    """Build the data set from `folder`, `groups`, `unconditioned_transforms` and their sections.

    Raises:
      UserError: the folder does not exist, no image is readable, or a split has no images.
    """
    options = config.folder
    root, (names, skipped) = find_images(options.path)
    labels = class_labels(names) if options.labels else None
    in_test = np.array([is_in_test_split(name, options.test) for name in names])
    order = np.argsort(in_test, kind="stable")  # the train split first
    images, read, reasons = read_images([root / names[i] for i in order], options.side)
    unreadable: dict[str, list[str]] = {}
    for index, reason in reasons.items():
        unreadable.setdefault(reason, []).append(names[order[index]])
    skipped = {**unreadable, **skipped}
    if not len(read):
        raise UserError(
            f"--config.folder.path: none of {len(names)} files could be read as images"
            f" ({describe_skipped(skipped)}). Use others."
        )
    order = order[read]
    if skipped:
        count = sum(map(len, skipped.values()))
        _log.warning("skipped %d entries of %s: %s", count, root, describe_skipped(skipped))
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


def find_images(path: str | None) -> tuple[Path, ImageFiles]:
    """Find all images below a folder; see `find_image_files`.

    Returns:
      The folder, and its image files.

    Raises:
      UserError: the path is not set, is not a folder, or has no images.
    """
    if not path:
        raise UserError("--config.folder.path: not set. Set it to a folder of images.")
    root = Path(stage_folder(path, "--config.folder.path"))
    try:
        files = find_image_files(root)
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}"
        raise UserError(
            f"--config.folder.path: cannot read {reason}. Use a readable folder."
        ) from error
    if not files.names:
        skipped = f" (skipped: {describe_skipped(files.skipped)})" if files.skipped else ""
        raise UserError(
            f"--config.folder.path: no images in {root}{skipped}. Add images of a type that Pillow"
            " reads, such as jpg, png, tif or webp."
        )
    return root, files


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


def _dummy(config: ConfigDict) -> Dataset:
    return dummy_stored_dataset(config, config.folder.side)


SPEC = DatasetSpec(build, _dummy)
