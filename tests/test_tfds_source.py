"""Tests of tfds_source and prepare: writing CIFAR-10, and reading image data sets, through TFDS."""

import io
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download.checksums import load_url_infos

from contextssl_jax.data import prepare, tfds_source
from contextssl_jax.data.png import decode_pngs
from contextssl_jax.data.tfds_source import ensure_prepared, load_images, prepare_cifar10
from contextssl_jax.errors import UserError

NAMES = "airplane automobile bird cat deer dog frog horse ship truck".split()
COMMAND = "python -m contextssl_jax.data.prepare --dataset=cifar10 --out="
NOWHERE = "http://127.0.0.1:9"  # nothing listens there
REAL = Path(os.environ.get("TFDS_DATA_DIR", ""), "cifar10", "3.0.2", "dataset_info.json")

# Reads CIFAR-10 knowing nothing of this package.
PLAIN_READER = """
import sys
import numpy as np
import tensorflow_datasets as tfds
source = tfds.data_source("cifar10", split="train")
examples = [source[i] for i in range(len(source))]
assert "tensorflow" not in sys.modules
np.savez(sys.argv[1], **{key: [example[key] for example in examples] for key in examples[0]})
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """An archive in CIFAR-10's binary format: 5 x 3 training and 4 test images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (19, 32, 32, 3), np.uint8)
    labels = rng.permutation(19).astype(np.uint8) % 10
    records = [
        bytes([label]) + b"".join(image[..., colour].tobytes() for colour in range(3))
        for image, label in zip(images, labels, strict=True)
    ]
    files = {f"data_batch_{i + 1}.bin": b"".join(records[3 * i : 3 * i + 3]) for i in range(5)}
    files["test_batch.bin"] = b"".join(records[15:])
    files["batches.meta.txt"] = ("\n".join(NAMES) + "\n\n").encode()
    path = tmp_path_factory.mktemp("archive") / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return SimpleNamespace(url=path.as_uri(), images=images, labels=labels)


@pytest.fixture(scope="module")
def prepared(original: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which the small archive is prepared."""
    folder = tmp_path_factory.mktemp("data")
    prepare_cifar10(str(folder), original.url)
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets no request out."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, NOWHERE)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def png_of(shape: Sequence[int], parts: Sequence[bytes]) -> bytes:
    """An 8-bit RGB PNG of compressed scanlines in several chunks."""
    header = struct.pack(">II", shape[1], shape[0]) + bytes((8, 2, 0, 0, 0))
    chunks = [(b"IHDR", header), *((b"IDAT", part) for part in parts), (b"IEND", b"")]
    framed = (
        struct.pack(">I", len(data)) + kind + data + zlib.crc32(kind + data).to_bytes(4)
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def filtered(image: np.ndarray, kind: int) -> bytes:
    """Scanlines by one filter of the PNG specification: none, left, above, average or Paeth."""
    x = np.pad(image.astype(int), ((1, 0), (1, 0), (0, 0)))
    left, above, corner = x[1:, :-1], x[:-1, 1:], x[:-1, :-1]
    near = np.stack([left, above, corner])
    nearest = np.abs(left + above - corner - near).argmin(axis=0)
    paeth = np.take_along_axis(near, nearest[None], axis=0)[0]
    predicted = (0 * left, left, above, (left + above) // 2, paeth)[kind]
    lines = ((image - predicted) % 256).astype(np.uint8).reshape(len(image), -1)
    return np.pad(lines, ((0, 0), (1, 0)), constant_values=kind).tobytes()


def chopped(data: bytes) -> list[bytes]:
    return [data[i : i + 7] for i in range(0, len(data), 7)]


def store(folder: Path, features: dict, train: list[dict], test: Sequence[dict] = ()) -> None:
    """Writes the examples as the splits of a TFDS data set named small."""

    class Small(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        url_infos = None

        def _info(self):
            spec = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=spec, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            splits = {"train": train, "test": test}
            return {k: self._generate_examples(v) for k, v in splits.items() if v}

        def _generate_examples(self, examples):
            yield from enumerate(examples)

    Small(data_dir=str(folder)).download_and_prepare(file_format="array_record")


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_plain_tfds_loads_the_written_data(original, prepared, tmp_path):
    file = tmp_path / "read.npz"
    environment = {**os.environ, "TFDS_DATA_DIR": str(prepared)}
    command = [sys.executable, "-c", PLAIN_READER, str(file)]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True)
    read = np.load(file)
    assert sorted(read["id"]) == [f"train_{i:05d}".encode() for i in range(15)]
    indices = [int(identifier[len("train_") :]) for identifier in read["id"]]
    np.testing.assert_array_equal(read["image"], original.images[indices])
    np.testing.assert_array_equal(read["label"], original.labels[indices])
    assert indices != sorted(indices)  # shuffled, as TFDS does


@pytest.mark.parametrize(("split", "part"), [("train", slice(15)), ("test", slice(15, None))])
def test_load_images_returns_the_images_of_the_archive(original, prepared, split, part):
    images, labels = load_images("cifar10", split, str(prepared))
    source = tfds.data_source("cifar10", split=split, data_dir=str(prepared))
    indices = [int(example["id"].decode().removeprefix(f"{split}_")) for example in source]
    assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
    np.testing.assert_array_equal(images, original.images[part][indices])
    np.testing.assert_array_equal(labels, original.labels[part][indices])
    assert "tensorflow" not in sys.modules


def test_layout_is_that_of_tfds(prepared):
    info = tfds.builder("cifar10", data_dir=str(prepared)).info
    assert info.features["label"].names == NAMES
    assert {name: split.num_examples for name, split in info.splits.items()} == {
        "train": 15,
        "test": 4,
    }
    assert sorted(path.name for path in prepared.rglob("*")) == [
        "3.0.2",
        "cifar10",
        "cifar10-test.array_record-00000-of-00001",
        "cifar10-train.array_record-00000-of-00001",
        "dataset_info.json",
        "features.json",
        "label.labels.txt",
    ]


def test_archive_is_the_one_of_tfds():
    known = load_url_infos(tfds.core.tfds_path("url_checksums/cifar10.txt"))
    assert known[tfds_source.CIFAR10_URL].checksum == tfds_source.CIFAR10_SHA256


def test_preparing_again_does_nothing(prepared):
    before = contents(prepared)
    prepare_cifar10(str(prepared), NOWHERE)
    ensure_prepared("cifar10", str(prepared))
    assert contents(prepared) == before


def test_without_a_network_the_error_says_at_once_what_to_do(offline, tmp_path):
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        load_images("cifar10", "train", str(tmp_path))
    assert time.monotonic() - start < 5
    message = str(caught.value)
    assert "\n" not in message
    for part in ("cifar10", str(tmp_path), "TFDS_DATA_DIR", COMMAND, tfds_source.CIFAR10_URL):
        assert part in message
    assert not any(tmp_path.iterdir())


def test_damaged_download_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(tfds_source, "_download", lambda url: b"damaged")
    with pytest.raises(UserError, match="SHA-256"):
        prepare_cifar10(str(tmp_path))
    assert not any(tmp_path.iterdir())


def test_interrupted_preparation_leaves_nothing_behind(monkeypatch, original, tmp_path):
    calls = iter(range(17))  # all of train's images, but not all of test's
    encode = tfds_source._encode

    def interrupted(image: np.ndarray) -> bytes:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return encode(image)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tfds_source, "_encode", interrupted)
        prepare_cifar10(str(tmp_path), original.url)
    assert not any((tmp_path / "cifar10").iterdir())
    prepare_cifar10(str(tmp_path), original.url)
    assert len(load_images("cifar10", "train", str(tmp_path))[0]) == 15


def test_two_processes_may_prepare_at_once(monkeypatch, original, tmp_path):
    encode = tfds_source._encode

    def overtaken(image: np.ndarray) -> bytes:
        monkeypatch.setattr(tfds_source, "_encode", encode)
        prepare_cifar10(str(tmp_path), original.url)
        return encode(image)

    monkeypatch.setattr(tfds_source, "_encode", overtaken)
    prepare_cifar10(str(tmp_path), original.url)
    assert [path.name for path in (tmp_path / "cifar10").iterdir()] == ["3.0.2"]


def test_part_of_a_data_set_is_not_taken_for_one(original, tmp_path):
    folder = tmp_path / "cifar10" / "3.0.2"
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match=f"{folder}: is an incomplete data set"):
        prepare_cifar10(str(tmp_path), original.url)


def test_folder_that_cannot_be_written(original, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write .*file/cifar10"):
        prepare_cifar10(str(tmp_path / "file"), original.url)


def test_other_data_sets_are_not_prepared(tmp_path):
    with pytest.raises(UserError, match=f"mnist is not in {tmp_path}/mnist/.*TFDS_DATA_DIR"):
        ensure_prepared("mnist", str(tmp_path))
    with pytest.raises(UserError, match="^TFDS has no data set 'no_such_data'"):
        ensure_prepared("no_such_data", str(tmp_path))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("split", "reason"),
    [
        ("valid", "Unknown split 'valid'"),
        ("train[:", "Unrecognized split format"),
        ("train[:0]", "can not be of 0 length"),
        ("train[5:3]", "should return >= 0"),
    ],
)
def test_split_that_cannot_be_read(prepared, split, reason):
    with pytest.raises(UserError, match=f"^cannot read cifar10 .*{reason}") as caught:
        load_images("cifar10", split, str(prepared))
    assert "\n" not in str(caught.value)


def test_files_without_random_access(prepared, tmp_path):
    info = Path("cifar10/3.0.2/dataset_info.json")
    (tmp_path / info).parent.mkdir(parents=True)
    text = (prepared / info).read_text().replace("array_record", "tfrecord")
    (tmp_path / info).write_text(text)
    (tmp_path / info).with_name("features.json").write_bytes(
        (prepared / info).with_name("features.json").read_bytes()
    )
    with pytest.raises(UserError, match="TFRECORD.* not supported.*array_record") as caught:
        load_images("cifar10", "train", str(tmp_path))
    assert "\n" not in str(caught.value)


def test_pngs_are_decoded_together_as_one_by_one():
    """With every filter of scanlines, in one or several chunks of data."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (10, 6, 4, 3), np.uint8)
    files = []
    for i, image in enumerate(images):
        scanlines = filtered(image, i % 5)
        parts = [zlib.compress(scanlines)] if i < 5 else chopped(zlib.compress(scanlines))
        files.append(png_of(image.shape, parts))
        np.testing.assert_array_equal(Image.open(io.BytesIO(files[-1])), image)
    np.testing.assert_array_equal(decode_pngs(files), images)
    np.testing.assert_array_equal(decode_pngs(files[:1]), images[:1])


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file[:-20],
        lambda file: file[:50] + bytes([file[50] ^ 255]) + file[51:],
        lambda file: file[:30] + b"x" + file[31:],
        lambda file: b"",
        lambda file: png(np.zeros((6, 5, 3), np.uint8)),
        lambda file: png(np.zeros((6, 4), np.uint8)),
        lambda file: png_of((6, 4, 3), [zlib.compress(bytes(6 * 13 - 1))]),
        lambda file: png_of((6, 4, 3), [zlib.compress(bytes([9]) * 6 * 13)]),
    ],
)
@pytest.mark.parametrize("at", [0, 1])
def test_pngs_that_are_damaged_or_differ_are_left_to_pil(damage, at):
    files = [png(np.full((6, 4, 3), i, np.uint8)) for i in range(3)]
    files[at] = damage(files[at])
    assert decode_pngs(files) is None


def test_grey_images_without_labels_become_rgb(tmp_path):
    grey = np.arange(2 * 5 * 5, dtype=np.uint8).reshape(2, 5, 5)
    store(
        tmp_path, {"image": tfds.features.Image(shape=(5, 5, 1))}, [{"image": png(x)} for x in grey]
    )
    images, labels = load_images("small", "train", str(tmp_path))
    np.testing.assert_array_equal(images, np.repeat(grey[..., None], 3, axis=-1))
    assert labels is None


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            [(5, 5, 3), (5, 7, 3)],
            r"small train .* several sizes, such as \(5, 5\) and \(5, 7\). Set",
        ),
        ([(5, 7, 3), (5, 7, 3)], r"small train .* not square, such as \(5, 7\). Set"),
    ],
)
def test_images_that_are_not_squares_of_one_size_need_a_side(tmp_path, shapes, message):
    examples = [{"image": png(np.zeros(shape, np.uint8))} for shape in shapes]
    store(tmp_path, {"image": tfds.features.Image()}, examples)
    with pytest.raises(UserError, match=message + " --config.tfds.side$"):
        load_images("small", "train", str(tmp_path))
    images, _ = load_images("small", "train", str(tmp_path), 4)
    assert images.shape == (2, 4, 4, 3)


def test_a_side_keeps_the_central_square_and_a_slice_its_examples(tmp_path):
    thirds = np.repeat(np.uint8([0, 200, 100]), 10)[None, :, None].repeat(10, 0).repeat(3, 2)
    examples = [{"image": png(thirds + np.uint8(i))} for i in range(4)]
    store(tmp_path, {"image": tfds.features.Image()}, examples)
    images, _ = load_images("small", "train[50%:]", str(tmp_path), 10)
    np.testing.assert_array_equal(images, np.full((2, 10, 10, 3), 200) + [[[[2]]], [[[3]]]])


@pytest.mark.parametrize(
    ("feature", "values", "expected"),
    [
        (tfds.features.ClassLabel(num_classes=7), [6, 0], [6, 0]),
        (tfds.features.Scalar(dtype=np.int64), [6, 0], [6, 0]),
        (tfds.features.ClassLabel(num_classes=7), [-1, -1], None),  # as of stl10's unlabelled
        (tfds.features.Text(), ["cat", "dog"], None),
        (tfds.features.Scalar(dtype=np.float32), [0.5, 1.5], None),
        (tfds.features.Sequence(tfds.features.ClassLabel(num_classes=7)), [[6], [1, 2]], None),
        (tfds.features.FeaturesDict({"fine": np.int64}), [{"fine": 6}, {"fine": 0}], None),
    ],
)
def test_only_whole_numbers_that_are_known_are_classes(tmp_path, feature, values, expected):
    examples = [{"image": png(np.zeros((4, 4, 3), np.uint8)), "label": v} for v in values]
    store(tmp_path, {"image": tfds.features.Image(), "label": feature}, examples)
    _, labels = load_images("small", "train", str(tmp_path))
    assert expected == (None if labels is None else labels.tolist())
    assert labels is None or labels.dtype == np.int32


def test_data_set_without_images_is_refused(tmp_path):
    store(tmp_path, {"text": tfds.features.Text()}, [{"text": "word"}])
    with pytest.raises(UserError, match="no feature named image"):
        load_images("small", "train", str(tmp_path))


def test_command_line(offline, monkeypatch, prepared, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(prepared.parent))
    assert prepare.main(["--dataset=cifar10", f"--out=~/{prepared.name}"]) == 0
    assert "ready" in capsys.readouterr().out
    assert prepare.main(["--dataset=cifar10", f"--out={tmp_path}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.skipif(not REAL.exists(), reason="TFDS_DATA_DIR does not hold cifar10/3.0.2")
def test_real_cifar10():
    train, train_labels = load_images("cifar10", "train", None)
    test, test_labels = load_images("cifar10", "test", None)
    assert (train.shape, test.shape) == ((50000, 32, 32, 3), (10000, 32, 32, 3))
    mean = np.mean(train, axis=(0, 1, 2), dtype=np.float64) / 255
    np.testing.assert_allclose(mean, (0.4914, 0.4822, 0.4465), atol=5e-5)
    assert set(np.bincount(train_labels)) == {5000}
    assert set(np.bincount(test_labels)) == {1000}


@pytest.mark.parametrize("damage", ["cut", "gone", "flipped", "empty", "info"])
def test_a_data_set_that_is_damaged_is_one_line(prepared, tmp_path, damage):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    (shard, *_) = sorted(tmp_path.rglob("*train.array_record*"))
    (info,) = tmp_path.rglob("dataset_info.json")
    data = shard.read_bytes()
    if damage == "cut":
        shard.write_bytes(data[: len(data) // 2])
    elif damage == "gone":
        shard.unlink()
    elif damage == "flipped":
        start = 64 * 1024 + 100  # where the records are, behind the shard's own beginning
        shard.write_bytes(data[:200] + bytes(b ^ 255 for b in data[200:start]) + data[start:])
    elif damage == "empty":
        shard.write_bytes(b"")
    else:
        info.write_text(info.read_text()[:100])
    with pytest.raises(UserError, match="damaged") as caught:
        load_images("cifar10", "train", str(tmp_path))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
