"""Image files of any type that Pillow decodes: those below a folder, and their pixels."""

import functools
import os
import stat
import warnings
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageFile, PngImagePlugin, UnidentifiedImageError

from contextssl_jax.data.images import rgb, square
from contextssl_jax.progress import task
from contextssl_jax.storage.safe_json import truncate

# Registered with Pillow, but not decoded: EPS is a program that Ghostscript runs.
_NOT_DECODED = ("EPS", "MPEG")
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MAX_NAMED = 3  # files named for each reason

# A compressed text chunk may be as large as all text chunks together, 64 MB; by default, Pillow
# rejects an image with more than 1 MB.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY

Skipped = Mapping[str, Sequence[str]]  # names of files, folders and links by reason


class ImageFiles(NamedTuple):
    """The image files below a folder.

    Attributes:
      names: paths relative to the folder, separated by "/", sorted.
      skipped: everything else below the folder.
    """

    names: list[str]
    skipped: Skipped


@functools.cache
def readable_formats() -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the formats that Pillow decodes without other programs, and their file extensions."""
    Image.init()
    formats = tuple(
        name
        for name, (factory, _) in Image.OPEN.items()
        if name not in _NOT_DECODED
        # Pillow recognizes the formats of stubs only.
        and not (isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile))
    )
    extensions = Image.registered_extensions().items()
    return formats, frozenset(suffix for suffix, name in extensions if name in formats)


def find_image_files(root: Path) -> ImageFiles:
    """Find all images below a folder, by their file names.

    Symbolic links to files and folders are followed. A file that is found more than once has one
    name: the one without a link, else the first by alphabet. Otherwise, copies of an image could be
    in both splits. Hidden files and folders are skipped.

    Raises:
      OSError: the folder, or a folder below it that is not a link, cannot be read.
    """
    real_root = os.path.realpath(root)
    names, skipped = list[str](), dict[str, list[str]]()
    found, visited = set[str](), set[str]()  # real paths of files, and of folders
    links = deque[str]()

    def skip(reason: str, name: str) -> None:
        skipped.setdefault(reason, []).append(name)

    def add_file(name: str, mode: int, real: str) -> None:
        if not stat.S_ISREG(mode):
            skip("no regular file", name)
        elif os.path.splitext(name)[1].lower() not in readable_formats()[1]:
            skip("other types", name)
        elif real in found:
            skip("repeated by links", name)
        else:
            found.add(real)
            names.append(name)

    def walk(folder: str, real_folder: str) -> None:
        """Add the files of a folder and of the folders below it; links are queued."""
        visited.add(real_folder)
        with os.scandir(real_folder) as iterator:
            entries = sorted(iterator, key=lambda entry: entry.name)
        for entry in entries:
            name, real = f"{folder}{entry.name}", os.path.join(real_folder, entry.name)
            if entry.name.startswith("."):
                skip("hidden", name)
            elif entry.is_symlink():
                links.append(name)
            elif not entry.is_dir(follow_symlinks=False):
                add_file(name, entry.stat(follow_symlinks=False).st_mode, real)
            elif real in visited:
                skip("repeated by links", name)
            else:
                walk(f"{name}/", real)

    walk("", real_root)
    while links:
        name = links.popleft()
        try:
            real = os.path.realpath(root / name, strict=True)
            mode = os.stat(real).st_mode
            if not stat.S_ISDIR(mode):
                add_file(name, mode, real)
            elif real in visited or f"{real_root}/".startswith(f"{real}/".replace("//", "/")):
                skip("repeated by links", name)
            else:
                walk(f"{name}/", real)
        except OSError:
            skip("links that cannot be followed", name)
    return ImageFiles(sorted(names), {reason: sorted(skipped[reason]) for reason in skipped})


def read_images(files: Sequence[Path], side: int) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Read images as squares, in threads.

    Returns:
      images: uint8 [n, side, side, 3], of the readable files.
      read: their indices in files, ascending, int [n].
      reasons: why the other files cannot be read, by index.
    """
    images = np.empty((len(files), side, side, 3), np.uint8)
    read, reasons = list[int](), dict[int, str]()
    reading = task("reading the folder", len(files), "images")
    with reading as progress, warnings.catch_warnings(), ThreadPool() as pool:
        warnings.simplefilter("ignore")  # of damaged tags, and of large images
        results = pool.imap(functools.partial(read_image, side=side), files)
        for index, image in enumerate(results):
            if isinstance(image, str):
                reasons[index] = image
            else:
                images[len(read)] = image
                read.append(index)
            progress.advance()
    return images[: len(read)], np.array(read, int), reasons


def read_image(file: Path, side: int) -> np.ndarray | str:
    """Read the first frame of an image, upright, as uint8 [side, side, 3].

    Returns:
      The image, or the reason why the file cannot be read.
    """
    try:
        with Image.open(file, formats=readable_formats()[0]) as image:
            image.draft(None, (2 * side, 2 * side))  # large JPEGs decode several times faster
            return square(rgb(_upright(image)), side)
    except Image.DecompressionBombError:
        return "too many pixels"
    except UnidentifiedImageError:
        return "no images"
    except PermissionError:
        return "no permission"
    except Exception:  # Pillow raises many types for damaged files
        return "damaged"


def describe_skipped(skipped: Skipped) -> str:
    """Return the number and the first names of skipped files by reason, as part of a line."""
    parts = []
    for reason, names in sorted(skipped.items()):
        if reason == "other types":
            kinds = Counter(os.path.splitext(name)[1].lower() or "no extension" for name in names)
            shown = [kind for kind, _ in kinds.most_common()]
        else:
            shown = sorted(names)
        first = ", ".join(truncate(one) for one in shown[:_MAX_NAMED])
        more = ", ..." if len(shown) > _MAX_NAMED else ""
        parts.append(f"{len(names)} {reason} ({first}{more})")
    return "; ".join(parts)


def _upright(image: Image.Image) -> Image.Image:
    """Turn an image by its EXIF orientation.

    ImageOps.exif_transpose also writes the other EXIF tags again, which fails in some versions of
    Pillow for values such as a GPS position of 0/0.
    """
    image.load()
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged tags raise many types; the pixels are intact
        orientation = 1
    method = _TRANSPOSES.get(orientation)
    return image if method is None else image.transpose(method)
