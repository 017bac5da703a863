"""3DIEBench as its archive unpacks: a folder for each object, in it JPEGs and latents.

<synset>/<object>/image_<number>.jpg is a view, latent_<number>.npy beside it the scene that it
shows: seven numbers, see groups.scene.
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

SCENE = 7  # numbers

_IMAGE = re.compile(r"image_(\d{1,4})\.jpg")
_SAMPLE = 16  # objects from which the number of views is told


class FlawError(ValueError):
    """A view that cannot be used; the message names the file."""


@dataclass(frozen=True)
class RawViews:
    """The views of some objects, decoded when they are read."""

    root: Path
    names: tuple[str, ...]
    views: int  # of each object
    side: int  # that they are resized to, pixels

    @property
    def counts(self) -> np.ndarray:
        """Views of each object, int [size]."""
        return np.full(len(self.names), self.views)

    def read(self, objects: np.ndarray, views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reads views [m] of objects [m]: images uint8 [m, S, S, 3], scenes float32 [m, 7].

        Raises:
          UserError: one of them cannot be used.
        """
        images = np.empty((len(objects), self.side, self.side, 3), np.uint8)
        scenes = np.empty((len(objects), SCENE), np.float32)
        for i, (index, view) in enumerate(zip(objects, views, strict=True)):
            try:
                images[i], scenes[i] = load_view(self.root, self.names[index], view, self.side)
            except FlawError as error:
                raise UserError(
                    f"{error}; put that right, or prepare the data, which leaves it out"
                ) from error
        return images, scenes


def load_view(root: Path, name: str, number: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Loads a view, uint8 [side, side, 3], and its scene, float32 [7].

    Raises:
      FlawError: one of its files is missing, damaged, or no such thing.
      UserError: one of them is not readable, or a link that leads out of the data's folder.
    """
    image, latent = (root / name / file for file in (f"image_{number}.jpg", f"latent_{number}.npy"))
    for file in (image, latent):
        if os.path.islink(file):
            _check_inside(root, file)
    return _load_image(image, side), _load_scene(latent)


def find_objects(root: Path, names: Sequence[str]) -> np.ndarray:
    """Says which objects have a folder, bool [n].

    Raises:
      UserError: none has, or a folder is a link that leads out of the data's.
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
            f"{root}: has none of the {len(names)} listed objects, such as {names[0]}: name the"
            " folder that the archive of 3DIEBench unpacks to"
        )
    return found


def count_views(root: Path, names: Sequence[str]) -> int:
    """Tells the number of views of an object: the highest number of an image among the first few.

    Raises:
      UserError: they have fewer than two.
    """
    numbers = [-1]
    for name in names[:_SAMPLE]:
        matches = (_IMAGE.fullmatch(entry.name) for entry in _entries(root / name))
        numbers += [int(match[1]) for match in matches if match]
    if max(numbers) < 1:
        raise UserError(f"{root / names[0]}: has no image_0.jpg, image_1.jpg and so on")
    return max(numbers) + 1


def _entries(folder: Path) -> list[os.DirEntry]:
    """Returns what is in a folder, nothing where there is none."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from error


def _check_inside(root: Path, path: Path) -> None:
    if os.path.realpath(root) not in map(str, Path(os.path.realpath(path)).parents):
        raise UserError(f"{path}: is a link that leads out of {root}, which is not followed")


def _load_image(path: Path, side: int) -> np.ndarray:
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            if image.width != image.height:
                raise FlawError(f"{path}: is not square")
            small = image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
            return np.asarray(small)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise _trouble(path, error) from error


def _load_scene(path: Path) -> np.ndarray:
    try:
        scene = read_array(path)
    except (OSError, ValueError) as error:
        raise _trouble(path, error) from error
    if scene.size != SCENE or scene.dtype.kind != "f":
        raise FlawError(f"{path}: holds {scene.size} {scene.dtype}, not {SCENE} floating-point")
    with np.errstate(over="ignore"):
        scene = scene.reshape(SCENE).astype(np.float32)
    if not np.isfinite(scene).all():
        raise FlawError(f"{path}: has entries that are not finite")
    return scene


def _trouble(path: Path, error: Exception) -> FlawError | UserError:
    """Tells a file that is no good from one that a disk or network does not yield."""
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return FlawError(f"{path}: is missing")
    if isinstance(error, OSError) and error.errno is not None:
        return UserError(f"{path}: cannot be read ({error.strerror})")
    reason = " ".join(str(error).replace(repr(str(path)), "it").split())
    return FlawError(f"{path}: is damaged ({reason})")
