"""Image data sets of TensorFlow Datasets (TFDS), read and prepared without TensorFlow."""

import hashlib
import io
import os
import re
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.json_format import ParseError
from PIL import Image
from tensorflow_datasets.image_classification.cifar import Cifar10
from tqdm import tqdm

from contextssl_jax.data.images import rgb, square
from contextssl_jax.data.staging import staged
from contextssl_jax.errors import UserError

# The archive that TFDS makes CIFAR-10 from, and the SHA-256 that TFDS has on record for it.
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"

_TIMEOUT = 10  # seconds of silence after which the network counts as absent
_BLOCK = 1 << 20  # bytes per read of a download
_CHUNK = 1000  # examples per read of a data set

_Example = tuple[int, dict[str, Any]]  # what a TFDS builder takes: a key and the features


def load_images(
    name: str, split: str, data_dir: str | None, side: int | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Loads a split of square images and their classes.

    Args:
      name: of the TFDS data set.
      split: its name, or a slice such as "train[:90%]".
      data_dir: that holds the data set; None: TFDS' own choice.
      side: that images are brought to; None leaves them as they are.

    Returns:
      images: uint8 [N, side, side, 3].
      labels: int32 [N]; None if the data set has no integer named label, or some are below 0.

    Raises:
      UserError: if it cannot be had or read, or if without `side` its images are not square and
        all of one size.
    """
    if data_dir is not None:
        data_dir = staged(data_dir, "--config.data.dir", re.split("[/:]", name)[0])
    ensure_prepared(name, data_dir)
    builder = _builder(name, data_dir)
    source = _open(builder, split)
    with _told_damage(builder):
        return _read(source, f"{name} {split}", side)


def _read(source: Any, what: str, side: int | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads all of a data source; see load_images."""
    shape = (side, side, 3) if side else _decode(source[0]["image"], None).shape
    if shape[0] != shape[1]:
        raise UserError(
            f"{what} has images that are not square, such as {shape[:2]}: set --config.tfds.side"
        )
    images = np.empty((len(source), *shape), np.uint8)
    labels = np.empty(len(source), np.int32) if _has_labels(source) else None
    # In one thread: small images spend so little time outside the GIL that more are slower.
    for index, example in enumerate(_examples(source, what)):
        image = _decode(example["image"], side)
        if image.shape != shape:
            raise UserError(
                f"{what} has images of several sizes, such as {shape[:2]} and"
                f" {image.shape[:2]}: set --config.tfds.side"
            )
        images[index] = image
        if labels is not None:
            labels[index] = example["label"]
    # Below 0 is how TFDS writes a class that is not known.
    return images, None if labels is None or labels.min() < 0 else labels


def ensure_prepared(name: str, data_dir: str | None) -> None:
    """Returns if data_dir (None: TFDS' own choice) holds the data set; else prepares CIFAR-10.

    Raises:
      UserError: if TFDS does not know it, or if it is not prepared and cannot be.
    """
    builder = _builder(name, data_dir)
    if builder.name == Cifar10.name:
        prepare_cifar10(data_dir)
    elif not _is_prepared(builder):
        raise UserError(
            f"data set {name} is not in {builder.data_path}: prepare it there with TFDS, in the "
            "format array_record, or set TFDS_DATA_DIR to the folder that holds it"
        )


def prepare_cifar10(data_dir: str | None, url: str = CIFAR10_URL) -> None:
    """Downloads CIFAR-10 and writes it below data_dir as TFDS does, unless it is there.

    Raises:
      UserError: if it cannot be downloaded or written.
    """
    builder = _builder(Cifar10.name, data_dir)
    folder = builder.data_path
    if _is_prepared(builder):
        return
    if folder.exists():
        raise UserError(f"{folder} holds only a part of a data set: delete it, then try again")
    try:
        archive = _download(url)
    except (OSError, HTTPException) as error:
        raise UserError(
            f"data set cifar10 is not in {folder} and cannot be downloaded from {url} ({error}): "
            "set TFDS_DATA_DIR to the folder that holds it, or make such a FOLDER where there is a "
            "network with `python -m contextssl_jax.data.prepare --dataset=cifar10 --out=FOLDER`"
        ) from error
    if url == CIFAR10_URL and hashlib.sha256(archive).hexdigest() != CIFAR10_SHA256:
        raise UserError(f"the download of {url} is damaged (its SHA-256 is wrong): try again")

    tfds.display_progress_bar(sys.stderr.isatty())
    writer = _PngCifar10(files=_unpack(archive), data_dir=builder.data_dir_root)
    try:
        # TFDS makes its empty download folder in the data folder if it is given no other.
        with tempfile.TemporaryDirectory() as unused:
            writer.download_and_prepare(download_dir=unused, file_format="array_record")
    except OSError as error:
        if not _is_prepared(builder):  # else another process has been faster
            raise UserError(f"cannot write {folder}: {error}") from error


class _PngCifar10(Cifar10, skip_registration=True):  # type: ignore[call-arg]
    """TFDS' CIFAR-10 from files in memory: with PNGs of PIL's, as TFDS' own need TensorFlow."""

    name = Cifar10.name
    url_infos = None  # TFDS downloads nothing here; its lookup needs a package it does not require

    def __init__(self, *, files: Mapping[str, bytes], data_dir: os.PathLike) -> None:
        super().__init__(data_dir=data_dir)
        self._files = files

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[_Example]]:
        origin = self._cifar_info
        (label_file,) = origin.label_files
        self.info.features["label"].names = self._files[label_file].decode().split()
        return {
            "train": self._generate_examples("train_", origin.train_files),
            "test": self._generate_examples("test_", origin.test_files),
        }

    def _generate_examples(self, split_prefix: str, filepaths: Sequence[str]) -> Iterator[_Example]:
        # A record is one byte of label, then a plane of 32x32 bytes for each colour.
        data = b"".join(self._files[path] for path in filepaths)
        records = np.frombuffer(data, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
        for index, record in enumerate(records):
            image = record[1:].reshape(3, 32, 32).transpose(1, 2, 0)
            name = f"{split_prefix}{index:05d}"
            # TFDS shuffles by a hash of the index, so the order on disk is also that of TFDS.
            yield index, {"id": name, "image": _encode(image), "label": record[0]}


def _builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Returns TFDS' own builder of a data set; raises UserError if there is none."""
    try:
        # TFDS would make a folder named ~, and shells do not expand it in --out=~/data.
        return tfds.builder(name, data_dir=data_dir and os.path.expanduser(data_dir))
    except ParseError as error:
        folder = f"{data_dir or 'the data folder'}/{name}"
        raise UserError(f"{folder}: dataset_info.json is damaged; put it back") from error
    except (AssertionError, ImportError, ValueError) as error:  # what TFDS raises: it varies
        raise UserError(f"TFDS has no data set {name!r}") from error


@contextmanager
def _told_damage(builder: tfds.core.DatasetBuilder) -> Iterator[None]:
    """Turns what readers of shards and images raise, which varies, into a UserError."""
    try:
        yield
    except UserError:
        raise
    except (RuntimeError, OSError, ValueError, IndexError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{builder.data_path}: is damaged ({reason}); put the damaged file back, or delete the"
            " folder and prepare the data set again"
        ) from error


def _is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    """Tells if a data set is on disk, without the warning of TFDS' is_prepared()."""
    return (builder.data_path / "dataset_info.json").exists()


def _open(builder: tfds.core.DatasetBuilder, split: str) -> Any:
    """Opens a split as a TFDS data source whose images are still encoded; or raises UserError."""
    try:
        source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        if not len(source):
            raise ValueError("it has no examples")
    # Not array_record; no such split; a shard that is gone or too short.
    except (NotImplementedError, ValueError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"cannot read {builder.name} {split}: {reason}") from error
    if "image" not in builder.info.features:
        raise UserError(f"{builder.name} is no data set of images: it has no feature named image")
    return source


def _has_labels(source: Any) -> bool:
    """Says whether a data source's examples have one class each: an integer named label."""
    features = source.dataset_info.features
    if "label" not in features or features["label"].shape != ():
        return False
    return np.issubdtype(features["label"].np_dtype, np.integer)


def _examples(source: Any, description: str) -> Iterator[dict[str, Any]]:
    """Yields a data source's examples in order, under a progress bar if stderr is a terminal."""
    with tqdm(total=len(source), desc=description, unit=" images", disable=None) as bar:
        for start in range(0, len(source), _CHUNK):
            chunk = source.__getitems__(list(range(start, min(start + _CHUNK, len(source)))))
            yield from chunk
            bar.update(len(chunk))


def _decode(data: bytes, side: int | None) -> np.ndarray:
    """Decodes an image file to uint8 [side, side, 3], or [H, W, 3] as it is; grey ones too."""
    image = rgb(Image.open(io.BytesIO(data)))
    return np.asarray(image) if side is None else square(image, side)


def _encode(image: np.ndarray) -> bytes:
    """Encodes an image, uint8 [H, W, 3], as PNG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def _download(url: str) -> bytes:
    """Returns what is at url, under a progress bar; raises OSError or HTTPException."""
    with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
        size = int(response.headers.get("Content-Length", 0)) or None
        with tqdm.wrapattr(response, "read", size, desc=url, disable=None) as stream:
            return b"".join(iter(lambda: stream.read(_BLOCK), b""))


def _unpack(archive: bytes) -> dict[str, bytes]:
    """Returns the contents of an archive's files by their names without folders."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {
            PurePosixPath(member.name).name: file.read()
            for member in tar
            if (file := tar.extractfile(member))
        }
