"""The unpacked archive of 3DIEBench: a folder for each object, with JPEGs and latents.

<synset>/<object>/image_<number>.jpg is a view, and latent_<number>.npy its scene: seven numbers,
see transforms.scene.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from contextssl_jax.data.bench3d.lists import read_array
from contextssl_jax.errors import UserError

SCENE = 7  # numbers of a scene

_IMAGE = re.compile(r"image_(\d{1,4})\.jpg")
_SAMPLE = 16  # objects from which the number of views is inferred


class FlawError(ValueError):
    """An unusable view; the message names the file."""


@dataclass(frozen=True)
class RawViews:
    """The views of some objects, decoded on demand."""

    root: Path
    names: tuple[str, ...]
    views: int  # number of views of each object
    side: int  # pixels that views are resized to

    @property
    def counts(self) -> np.ndarray:
        """Return the number of views of each object, int [size]."""
        return np.full(len(self.names), self.views)

    def read(self, objects: np.ndarray, views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Read views [m] of objects [m]: images uint8 [m, S, S, 3], scenes float32 [m, 7].

        Raises:
          UserError: a view is unusable.
        """
        images = np.empty((len(objects), self.side, self.side, 3), np.uint8)
        scenes = np.empty((len(objects), SCENE), np.float32)
        for i, (index, view) in enumerate(zip(objects, views, strict=True)):
            try:
                images[i], scenes[i] = load_view(self.root, self.names[index], view, self.side)
            except FlawError as error:
                raise UserError(
                    f"{error}. Restore the file, or prepare the data, which skips it."
                ) from error
        return images, scenes


def load_view(root: Path, name: str, number: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Load a view, uint8 [side, side, 3], and its scene, float32 [7].

    Raises:
      FlawError: one of its files is missing, damaged or malformed.
      UserError: one of them is not readable, or a link that leads out of the data folder.
    """
    image, latent = (root / name / file for file in (f"image_{number}.jpg", f"latent_{number}.npy"))
    for file in (image, latent):
        if os.path.islink(file):
            _check_inside(root, file)
    return _load_image(image, side), _load_scene(latent)


def find_objects(root: Path, names: Sequence[str]) -> np.ndarray:
    """Return which objects have a folder, bool [n].

    Raises:
      UserError: none has one, or a folder is a link that leads out of the data folder.
    """
    present = set()
    for synset in sorted({name.split("/")[0] for name in names}):
        _check_inside(root, root / synset)
        for entry in _entries(root / synset):
            if entry.is_symlink():
                _check_inside(root, Path(entry.path))
            if entry.is_dir():
                present.add(f"{synset}/{entry.name}")
    found = np.array([name in present for name in names])
    if not found.any():
        raise UserError(
            f"{root}: has none of the {len(names)} listed objects, such as {names[0]}. Use the"
            " folder of the unpacked archive of 3DIEBench."
        )
    return found


def count_views(root: Path, names: Sequence[str]) -> int:
    """Infer the number of views of an object from the highest image number of the first objects.

    Raises:
      UserError: they have fewer than two views.
    """
    numbers = [-1]
    for name in names[:_SAMPLE]:
        matches = (_IMAGE.fullmatch(entry.name) for entry in _entries(root / name))
        numbers += [int(match[1]) for match in matches if match]
    if max(numbers) < 1:
        raise UserError(
            f"{root / names[0]}: has no image_0.jpg, image_1.jpg and so on. Unpack the archive"
            " again."
        )
    return max(numbers) + 1


def _entries(folder: Path) -> list[os.DirEntry]:
    """Return the entries of a folder; none if it does not exist."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be read ({error.strerror}). Check its permissions."
        ) from error


def _check_inside(root: Path, path: Path) -> None:
    if os.path.realpath(root) not in map(str, Path(os.path.realpath(path)).parents):
        raise UserError(
            f"{path}: is a link that leads out of {root}. Replace it by the file or folder."
        )


def _load_image(path: Path, side: int) -> np.ndarray:
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            if image.width != image.height:
                raise FlawError(f"{path}: is not square")
            small = image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
            return np.asarray(small)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise _classify_error(path, error) from error


def _load_scene(path: Path) -> np.ndarray:
    try:
        scene = read_array(path)
    except (OSError, ValueError) as error:
        raise _classify_error(path, error) from error
    if scene.size != SCENE or scene.dtype.kind != "f":
        raise FlawError(f"{path}: has {scene.size} {scene.dtype}, not {SCENE} floating-point")
    with np.errstate(over="ignore"):
        scene = scene.reshape(SCENE).astype(np.float32)
    if not np.isfinite(scene).all():
        raise FlawError(f"{path}: has entries that are not finite")
    return scene


def _classify_error(path: Path, error: Exception) -> FlawError | UserError:
    """Distinguish an unusable file from an error of the disk or network."""
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return FlawError(f"{path}: is missing")
    if isinstance(error, OSError) and error.errno is not None:
        return UserError(f"{path}: cannot be read ({error.strerror}). Check the disk or network.")
    reason = " ".join(str(error).replace(repr(str(path)), "it").split())
    return FlawError(f"{path}: is damaged ({reason})")
