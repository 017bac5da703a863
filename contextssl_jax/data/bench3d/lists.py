"""The official lists of 3DIEBench: the objects of each split and their classes."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from contextssl_jax.errors import UserError

SPLITS = {"train": "train", "test": "val"}  # name of a split here: name in the lists
ORIGIN = "the folder data of github.com/facebookresearch/SIE"

_FILES = tuple(f"{name}_{of}.npy" for name in SPLITS.values() for of in ("images", "labels"))
# A path component that cannot lead out of its parent folder.
_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


class Objects(NamedTuple):
    """The objects of a split."""

    names: tuple[str, ...]  # "<synset>/<object>", their folders within the data folder
    labels: np.ndarray  # classes, int32 [n]


def find_lists(folders: Sequence[Path]) -> Path:
    """Return the first folder that has a list.

    Raises:
      UserError: none has one.
    """
    for folder in folders:
        if any((folder / file).exists() for file in _FILES):
            return folder
    places = " nor in ".join(map(str, folders))
    raise UserError(f"{_FILES[0]}: found neither in {places}. Copy it from {ORIGIN}.")


def read_lists(folder: Path) -> dict[str, Objects]:
    """Read the objects of the splits "train" and "test".

    Raises:
      UserError: a list is missing, malformed, or inconsistent with another one.
    """
    splits = {split: _read_split(folder, name) for split, name in SPLITS.items()}
    train, test = (splits[split].names for split in ("train", "test"))
    both = set(train).intersection(test)
    if both:
        raise UserError(
            f"{folder}: {len(both)} objects are in both splits, such as {min(both)}. Copy {ORIGIN}"
            " there again."
        )
    return splits


def read_array(path: str | os.PathLike) -> np.ndarray:
    """Read a .npy file, never a pickle.

    Raises:
      OSError: it cannot be read.
      ValueError: it is not a complete .npy file, or has pickles.
    """
    with open(path, "rb") as file:
        try:
            array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        except (MemoryError, OverflowError) as error:  # an impossible shape
            raise ValueError("its header is damaged") from error
    return array


def _read_split(folder: Path, name: str) -> Objects:
    images, labels = (_read_list(folder / f"{name}_{of}.npy") for of in ("images", "labels"))
    where = folder / f"{name}_images.npy"
    if images.ndim != 1 or images.dtype.kind != "U" or not len(images):
        raise UserError(
            f"{where}: has {_describe(images)}, not the names of objects. Copy {ORIGIN} there"
            " again."
        )
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(
            f"{folder / f'{name}_labels.npy'}: has {_describe(labels)}, not an integer per object."
            f" Copy {ORIGIN} there again."
        )
    if len(images) != len(labels):
        raise UserError(
            f"{where}: names {len(images)} objects, but there are {len(labels)} labels. Copy"
            f" {ORIGIN} there again."
        )
    if labels.min() < 0:
        raise UserError(
            f"{folder / f'{name}_labels.npy'}: has the negative label {labels.min()}. Copy {ORIGIN}"
            " there again."
        )
    names = tuple(_object_name(where, str(image)) for image in images)
    (most, times), *_ = Counter(names).most_common(1)
    if times > 1:
        raise UserError(f"{where}: names {most} {times} times. Copy {ORIGIN} there again.")
    return Objects(names, labels.astype(np.int32))


def _read_list(path: Path) -> np.ndarray:
    try:
        return read_array(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: is missing. Copy {ORIGIN} there.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Copy {ORIGIN} there again.") from error


def _object_name(where: Path, line: str) -> str:
    """Return "<synset>/<object>" of a line such as "/02691156/dc8d9003/"."""
    parts = line.strip("/").split("/")
    if len(parts) != 2 or not all(_PART.fullmatch(part) for part in parts):
        raise UserError(
            f"{where}: {line!r} is not an object's folder, such as '/02691156/dc8d9003/'. Copy"
            f" {ORIGIN} there again."
        )
    return "/".join(parts)


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"
