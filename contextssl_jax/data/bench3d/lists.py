"""The official lists of 3DIEBench: which objects each split holds, and their classes."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from contextssl_jax.errors import UserError

SPLITS = {"train": "train", "test": "val"}  # this project's name of a split: the lists'
ORIGIN = "the folder data of github.com/facebookresearch/SIE"

_FILES = tuple(f"{name}_{of}.npy" for name in SPLITS.values() for of in ("images", "labels"))
# What cannot lead out of the folder that it is looked up in.
_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


class Objects(NamedTuple):
    """The objects of a split."""

    names: tuple[str, ...]  # "<synset>/<object>", their folders below the data's
    labels: np.ndarray  # classes, int32 [n]


def find_lists(folders: Sequence[Path]) -> Path:
    """Returns the first folder that holds a list.

    Raises:
      UserError: none does.
    """
    for folder in folders:
        if any((folder / file).exists() for file in _FILES):
            return folder
    looked = " nor in ".join(map(str, folders))
    raise UserError(f"there is neither in {looked} the list {_FILES[0]}: copy {ORIGIN} there")


def read_lists(folder: Path) -> dict[str, Objects]:
    """Reads the objects of the splits "train" and "test".

    Raises:
      UserError: a list is missing, no list of such things, or at odds with another one.
    """
    splits = {split: _read_split(folder, name) for split, name in SPLITS.items()}
    train, test = (splits[split].names for split in ("train", "test"))
    both = set(train).intersection(test)
    if both:
        raise UserError(
            f"{folder}: {len(both)} objects are in both splits, such as {min(both)}: copy {ORIGIN}"
            " there anew"
        )
    return splits


def read_array(path: str | os.PathLike) -> np.ndarray:
    """Reads a .npy file, never a pickle.

    Raises:
      OSError: it cannot be read.
      ValueError: it is no whole .npy file, or holds pickles.
    """
    with open(path, "rb") as file:
        try:
            array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        except (MemoryError, OverflowError) as error:  # of a shape that no file could have
            raise ValueError("its header is damaged") from error
    return array


def _read_split(folder: Path, name: str) -> Objects:
    images, labels = (_read_list(folder / f"{name}_{of}.npy") for of in ("images", "labels"))
    where = folder / f"{name}_images.npy"
    if images.ndim != 1 or images.dtype.kind != "U" or not len(images):
        raise UserError(f"{where}: holds {_described(images)}, not the names of objects")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        of = folder / f"{name}_labels.npy"
        raise UserError(f"{of}: holds {_described(labels)}, not a whole number for each object")
    if len(images) != len(labels):
        raise UserError(f"{where}: names {len(images)} objects, but has {len(labels)} labels")
    if labels.min() < 0:
        raise UserError(f"{folder / f'{name}_labels.npy'}: has the negative label {labels.min()}")
    names = tuple(_object_name(where, str(image)) for image in images)
    (most, times), *_ = Counter(names).most_common(1)
    if times > 1:
        raise UserError(f"{where}: names {most} {times} times")
    return Objects(names, labels.astype(np.int32))


def _read_list(path: Path) -> np.ndarray:
    try:
        return read_array(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: is missing; copy {ORIGIN} there") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); copy {ORIGIN} there anew") from error


def _object_name(where: Path, line: str) -> str:
    """Returns "<synset>/<object>" of a line such as "/02691156/dc8d9003/"."""
    parts = line.strip("/").split("/")
    if len(parts) != 2 or not all(_PART.fullmatch(part) for part in parts):
        raise UserError(f"{where}: {line!r} is no object's folder, such as '/02691156/dc8d9003/'")
    return "/".join(parts)


def _described(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"
