"""Image data sets of TensorFlow Datasets (TFDS), loaded and prepared without TensorFlow."""

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
from google.protobuf.message import DecodeError
from PIL import Image
from tensorflow_datasets.image_classification.cifar import Cifar10
from tensorflow_datasets.proto import tf_example_pb2
from tqdm import tqdm

from contextssl_jax.data.images import rgb, square
from contextssl_jax.data.png import decode_pngs
from contextssl_jax.data.staging import stage_folder
from contextssl_jax.errors import UserError, expand_home

# The archive that TFDS builds CIFAR-10 from, and its SHA-256 as registered in TFDS.
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"

_TIMEOUT = 10  # seconds without a response after which a download fails
_BLOCK = 1 << 20  # bytes per read of a download
_CHUNK = 1000  # examples per read of a data set

_Example = tuple[int, dict[str, Any]]  # key and features, as a TFDS builder expects them
_Features = Mapping[str, Any]  # tf.train.Feature by name


def load_images(
    name: str, split: str, data_dir: str | None, side: int | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Load a split of square images and their classes.

    Args:
      name: name of the TFDS data set.
      split: name of the split, or a slice such as "train[:90%]".
      data_dir: folder of prepared data sets; None for the default of TFDS.
      side: pixels that images are resized to; None leaves them unchanged.

    Returns:
      images: uint8 [N, side, side, 3].
      labels: int32 [N]; None if the data set has no integer feature `label`, or some are negative.

    Raises:
      UserError: the data set cannot be prepared or read, or without `side` its images are not
        square and of one size.
    """
    if data_dir is not None:
        data_dir = stage_folder(data_dir, "--config.data.dir", re.split("[/:]", name)[0])
    ensure_prepared(name, data_dir)
    builder = _builder(name, data_dir)
    source = _open(builder, split)
    with _reraise_damage(builder):
        return _read(source, f"{name} {split}", side)


def _read(source: Any, what: str, side: int | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Read all examples of a data source; see load_images."""
    shape = (side, side, 3) if side else _decode(_image(_features(source[0])), None).shape
    if shape[0] != shape[1]:
        raise UserError(
            f"{what} has images that are not square, such as {shape[:2]}. Set --config.tfds.side"
        )
    images = np.empty((len(source), *shape), np.uint8)
    labels = np.empty(len(source), np.int32) if _has_labels(source) else None
    for rows, examples in _chunks(source, what):
        decoded = _decode_all([_image(example) for example in examples], side)
        for image in decoded:
            if image.shape != shape:
                raise UserError(
                    f"{what} has images of several sizes, such as {shape[:2]} and"
                    f" {image.shape[:2]}. Set --config.tfds.side"
                )
        images[rows] = decoded
        if labels is not None:
            labels[rows] = [example["label"].int64_list.value[0] for example in examples]
    # TFDS marks unknown classes by negative labels.
    return images, None if labels is None or labels.min() < 0 else labels


def ensure_prepared(name: str, data_dir: str | None) -> None:
    """Ensure that data_dir (None: the default of TFDS) has the data set; prepares CIFAR-10 if not.

    Raises:
      UserError: TFDS has no such data set, or it is not prepared and cannot be.
    """
    builder = _builder(name, data_dir)
    if builder.name == Cifar10.name:
        prepare_cifar10(data_dir)
    elif not _is_prepared(builder):
        raise UserError(
            f"data set {name} is not in {builder.data_path}. Prepare it there with TFDS, in the "
            "format array_record, or set TFDS_DATA_DIR to the folder that has it."
        )


def prepare_cifar10(data_dir: str | None, url: str = CIFAR10_URL) -> None:
    """Download CIFAR-10 and write it below data_dir in the format of TFDS, unless it exists.

    Raises:
      UserError: it cannot be downloaded or written.
    """
    builder = _builder(Cifar10.name, data_dir)
    folder = builder.data_path
    if _is_prepared(builder):
        return
    if folder.exists():
        raise UserError(f"{folder}: is an incomplete data set. Delete it, then try again.")
    try:
        archive = _download(url)
    except (OSError, HTTPException) as error:
        raise UserError(
            f"data set cifar10 is not in {folder} and cannot be downloaded from {url} ({error}). "
            "Set TFDS_DATA_DIR to the folder that has it, or prepare such a FOLDER on a machine "
            "with network by `python -m contextssl_jax.data.prepare --dataset=cifar10 --out=FOLDER`"
        ) from error
    if url == CIFAR10_URL and hashlib.sha256(archive).hexdigest() != CIFAR10_SHA256:
        raise UserError(f"the download of {url} is damaged (its SHA-256 is wrong). Try again.")

    tfds.display_progress_bar(sys.stderr.isatty())
    writer = _PngCifar10(files=_unpack(archive), data_dir=builder.data_dir_root)
    try:
        # By default, TFDS creates its empty download folder inside the data folder.
        with tempfile.TemporaryDirectory() as unused:
            writer.download_and_prepare(download_dir=unused, file_format="array_record")
    except OSError as error:
        if not _is_prepared(builder):  # otherwise another process was faster
            raise UserError(f"cannot write {folder}: {error}. Use another folder.") from error


class _PngCifar10(Cifar10, skip_registration=True):  # type: ignore[call-arg]
    """CIFAR-10 of TFDS from files in memory; PNGs are encoded by PIL instead of TensorFlow."""

    name = Cifar10.name
    url_infos = None  # nothing is downloaded; the lookup needs a package that TFDS does not require

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
        # A record is one byte of label, then a plane of 32x32 bytes per channel.
        data = b"".join(self._files[path] for path in filepaths)
        records = np.frombuffer(data, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
        for index, record in enumerate(records):
            image = record[1:].reshape(3, 32, 32).transpose(1, 2, 0)
            name = f"{split_prefix}{index:05d}"
            # TFDS shuffles by a hash of the index, so the order on disk equals that of TFDS.
            yield index, {"id": name, "image": _encode(image), "label": record[0]}


def _builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Return the TFDS builder of a data set; raises UserError if there is none."""
    folder = data_dir and expand_home(data_dir, "--config.data.dir")
    if folder is None and os.environ.get("TFDS_DATA_DIR", "~").startswith("~"):
        # TFDS itself does not expand its variable, and without a home makes a folder named ~.
        default = expand_home(os.environ.get("TFDS_DATA_DIR", "~"), "TFDS_DATA_DIR")
        folder = default if "TFDS_DATA_DIR" in os.environ else None
    try:
        return tfds.builder(name, data_dir=folder)
    except ParseError as error:
        folder = f"{data_dir or 'the data folder'}/{name}"
        raise UserError(f"{folder}: dataset_info.json is damaged. Restore it.") from error
    except (AssertionError, ImportError, ValueError) as error:  # depends on the name
        raise UserError(f"TFDS has no data set {name!r}. Use a name of its catalog.") from error


@contextmanager
def _reraise_damage(builder: tfds.core.DatasetBuilder) -> Iterator[None]:
    """Reraise the errors of reading shards and images as UserError."""
    try:
        yield
    except UserError:
        raise
    except (RuntimeError, OSError, ValueError, IndexError, KeyError, DecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{builder.data_path}: is damaged ({reason}). Restore the damaged file, or delete the"
            " folder and prepare the data set again."
        ) from error


def _is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    """Return whether a data set is on disk, without the warning of TFDS' is_prepared()."""
    return (builder.data_path / "dataset_info.json").exists()


def _open(builder: tfds.core.DatasetBuilder, split: str) -> Any:
    """Open a split as a TFDS data source of encoded images; raises UserError."""
    try:
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        source = builder.as_data_source(split, deserialize_method=raw)
        if not len(source):
            raise ValueError("it has no examples")
    # Not array_record; no such split; a missing or truncated shard.
    except (NotImplementedError, ValueError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"cannot read {builder.name} {split}: {reason}. Use another split, or prepare it again."
        ) from error
    if "image" not in builder.info.features:
        raise UserError(f"{builder.name}: has no feature named image. Use a data set of images.")
    return source


def _has_labels(source: Any) -> bool:
    """Return whether examples have one class each: an integer feature named label."""
    features = source.dataset_info.features
    if "label" not in features or features["label"].shape != ():
        return False
    return np.issubdtype(features["label"].np_dtype, np.integer)


def _chunks(source: Any, description: str) -> Iterator[tuple[slice, list[_Features]]]:
    """Iterate over a data source, with a progress bar if stderr is a terminal."""
    with tqdm(total=len(source), desc=description, unit=" images", disable=None) as bar:
        for start in range(0, len(source), _CHUNK):
            rows = range(start, min(start + _CHUNK, len(source)))
            yield slice(rows.start, rows.stop), [_features(x) for x in source.__getitems__(rows)]
            bar.update(len(rows))


def _features(record: bytes) -> _Features:
    """Parse a record, several times faster than TFDS, which parses and decodes all features."""
    features: _Features = tf_example_pb2.Example.FromString(record).features.feature
    return features


def _image(features: _Features) -> bytes:
    """Return the file of an example's image; raises IndexError if it has none."""
    file: bytes = features["image"].bytes_list.value[0]
    return file


def _decode_all(files: Sequence[bytes], side: int | None) -> Sequence[np.ndarray] | np.ndarray:
    """Decode several image files; see _decode."""
    decoded = None if side else decode_pngs(files)
    return [_decode(file, side) for file in files] if decoded is None else decoded


def _decode(data: bytes, side: int | None) -> np.ndarray:
    """Decode an image file of any mode to uint8 [side, side, 3]; [H, W, 3] if side is None."""
    image = rgb(Image.open(io.BytesIO(data)))
    return np.asarray(image) if side is None else square(image, side)


def _encode(image: np.ndarray) -> bytes:
    """Encode an image, uint8 [H, W, 3], as PNG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def _download(url: str) -> bytes:
    """Download a url, with a progress bar; raises OSError or HTTPException."""
    with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
        size = int(response.headers.get("Content-Length", 0)) or None
        with tqdm.wrapattr(response, "read", size, desc=url, disable=None) as stream:
            return b"".join(iter(lambda: stream.read(_BLOCK), b""))


def _unpack(archive: bytes) -> dict[str, bytes]:
    """Return the contents of an archive's files by their base names."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {
            PurePosixPath(member.name).name: file.read()
            for member in tar
            if (file := tar.extractfile(member))
        }
