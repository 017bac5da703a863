"""A folder of images as a data set: what is read, how it is split, and what goes wrong."""

import json
import logging
import os
import struct
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tiny import TINY, run

from contextssl_jax.data import images
from contextssl_jax.data.folder import build, class_labels, find_images, is_in_test_split
from contextssl_jax.data.image_files import find_image_files, read_image, read_images
from contextssl_jax.data.images import channel_statistics, rgb, square

OWN = (
    "--config=configs/own_images.py",
    *TINY,
    "--config.folder.side=16",
    "--config.folder.test=0.3",
)

NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


def save(path: Path, image: np.ndarray | Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(path, **options)
    return path


def scenes(root: Path, n: int, side: int = 20, seed: int = 0) -> None:
    """Saves n images of noise as PNGs in `root`."""
    drawn = np.random.default_rng(seed).integers(0, 256, (n, side, side + 4, 3), np.uint8)
    for i, image in enumerate(drawn):
        save(root / f"{i:03d}.png", image)


def test_a_folder_without_classes_trains_and_evaluates(tmp_path, capsys):
    scenes(tmp_path / "images", 60)
    (tmp_path / "images" / "notes.jpg").write_text("no image")
    workdir = tmp_path / "run"
    where = (f"--config.folder.path={tmp_path / 'images'}", f"--workdir={workdir}")
    assert run(*OWN, *where) == 0
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    monitored = {name for line in lines for name in line if name.startswith("monitor/")}
    assert "monitor/r2/crop/blur/6" in monitored and "monitor/knn" not in monitored
    report = json.loads((workdir / "eval" / "2" / "report.json").read_text())
    assert report["provenance"]["data"] == "folder"
    assert set(report["r2"]["crop"]) == {"crop", "blur"}
    assert not any(name.startswith("accuracy") for name in report)
    assert "Classes" not in (workdir / "eval" / "2" / "report.html").read_text()
    assert "skipped 1 entries of" in capsys.readouterr().err


@pytest.mark.parametrize(
    "files, arguments, message",
    [
        ((), ("--config.folder.path=",), "--config.folder.path: must be a text"),
        ((), ("--config.folder.path={}/none",), "folder.path: cannot read {}/none: No such file"),
        (("a.png",), ("--config.folder.path={}/a.png",), "cannot read {}/a.png: Not a directory"),
        (
            ("a.txt", ".b.png"),
            (),
            "folder.path: no images in {} (skipped: 1 hidden (.b.png); 1 other types (.txt)). Add",
        ),
        (("a.jpg", "b.PNG"), (), "folder.path: none of 2 files could be read as images (2 no"),
        (("a.png",), ("--config.folder.test=0.5",), "0.5 of 1 images leave the"),
        (("a.png",), ("--config.folder.test=0",), "folder.test: must be a finite number above 0"),
        (("a.png",), ("--config.folder.test=1.0",), "folder.test: must be a finite number above 0"),
        (
            ("c/a.png", "b.png"),
            ("--config.folder.labels=True",),
            "labels: b.png is not in a folder",
        ),
        (("a.png",), ("--config.folder.side=0",), "folder.side: must be an integer from 1"),
    ],
)
def test_a_user_error_is_one_line(files, arguments, message, tmp_path, capsys):
    data, workdir = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    for name in files:
        file = data / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("no image")
        if file.suffix == ".png":
            save(file, np.zeros((4, 4, 3), np.uint8))
    path = (f"--config.folder.path={data}",)
    flags = (*path, *(argument.format(data) for argument in arguments))
    assert run(*OWN, *flags, f"--workdir={workdir}") == 2
    error = capsys.readouterr().err.strip()
    assert message.format(data) in error and error.startswith("error: ") and "\n" not in error
    assert not workdir.exists()


def test_images_are_found_in_order_with_links_and_the_rest_by_reason(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    blank = np.zeros((2, 2, 3), np.uint8)
    for path in (
        *("b/B.JPG", "b/a.jpeg", "a.webp", "Z.png", "c d/é.bmp", "d.png", "e.TIF"),
        *(".hidden/a.png", "._a.png"),
    ):
        save(root / path, blank)
    for path in ("x.png", "y.gif", "z/inner/1.ppm"):
        save(elsewhere / path, blank)
    (root / "notes.txt").touch()
    (root / "folder.png").mkdir()
    os.mkfifo(root / "pipe.png")  # who opens it waits for ever
    (elsewhere / "back").symlink_to(root, target_is_directory=True)
    links = {
        "file.png": elsewhere / "x.png",
        "file again.png": elsewhere / "x.png",
        "same.png": root / "Z.png",
        "a first.png": root / "Z.png",  # before its file by alphabet
        "inner": elsewhere / "z" / "inner",
        "outside": elsewhere,
        "loop": root,
        "up": tmp_path,
        "top": Path("/"),
        "gone.png": root / "nothing",
        "self.png": root / "self.png",
        "document.png": root / "notes.txt",
        "text.txt": root / "d.png",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    expected = ["Z.png", "a.webp", "b/B.JPG", "b/a.jpeg", "c d/é.bmp", "d.png", "e.TIF"]
    expected += ["document.png", "file again.png", "inner/1.ppm", "outside/y.gif"]
    skipped = {
        "hidden": ["._a.png", ".hidden"],
        "no regular file": ["pipe.png"],
        "other types": ["notes.txt", "text.txt"],
        "links that cannot be followed": ["gone.png", "self.png"],
        "repeated by links": [
            *("a first.png", "file.png", "loop", "outside/back", "outside/x.png"),
            *("outside/z/inner", "same.png", "top", "up"),
        ],
    }
    found = find_image_files(root)
    assert found.names == sorted(expected)
    assert found.skipped == skipped
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    assert find_images(str(tmp_path / "link"))[1] == found  # the folder itself may be a link


def test_a_folder_of_links_is_read_like_its_targets(tmp_path, config):
    """Both to files, as of a cache, and to folders, as of classes."""
    for name in ("ape", "bee"):
        scenes(tmp_path / "files" / name, 20, seed=len(name))
        (tmp_path / "folders").mkdir(exist_ok=True)
        (tmp_path / "folders" / name).symlink_to(tmp_path / "files" / name)
        (tmp_path / "each" / name).mkdir(parents=True)
        for file in (tmp_path / "files" / name).iterdir():
            os.link(file, tmp_path / f"blob{len(list(tmp_path.iterdir()))}")
            (tmp_path / "each" / name / file.name).symlink_to(file)
    config.folder.update(side=8, test=0.3, labels=True)

    def read(name: str) -> list[np.ndarray]:
        config.folder.path = str(tmp_path / name)
        return [x for s in build(config).splits.values() for x in (s.images, s.labels)]

    for name in ("folders", "each"):
        for ours, expected in zip(read(name), read("files"), strict=True):
            np.testing.assert_array_equal(ours, expected)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_link_is_skipped_and_an_unreadable_folder_is_an_error(tmp_path):
    save(tmp_path / "root" / "a.png", np.zeros((2, 2, 3), np.uint8))
    (tmp_path / "locked").mkdir(mode=0)
    (tmp_path / "root" / "link").symlink_to(tmp_path / "locked")
    reason = {"links that cannot be followed": ["link"]}
    assert find_image_files(tmp_path / "root").skipped == reason
    with pytest.raises(PermissionError):
        find_image_files(tmp_path)


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path / "photos" / "a.png", np.zeros((2, 2, 3), np.uint8))
    assert find_images("~/photos") == (tmp_path / "photos", (["a.png"], {}))


def test_the_split_is_by_path_alone():
    names = [f"some folder/{i}.jpg" for i in range(5000)]
    share = sum(is_in_test_split(name, 0.1) for name in names) / len(names)
    assert abs(share - 0.1) < 0.02
    # Recorded, since other machines and later versions must split alike.
    assert [i for i, name in enumerate(names[:40]) if is_in_test_split(name, 0.1)] == [23, 28, 29]
    part = int(sha256("é/ü.png".encode()).hexdigest(), 16) / 2**256
    assert is_in_test_split("é/ü.png", part + 1e-9) and not is_in_test_split("é/ü.png", part - 1e-9)


def test_the_split_stays_when_images_come_and_break(tmp_path, config):
    def split_of() -> dict[bytes, str]:
        splits = build(config).splits
        return {im.tobytes(): name for name, split in splits.items() for im in split.images}

    config.folder.update(path=str(tmp_path), side=20, test=0.3)
    scenes(tmp_path, 40)
    before = split_of()
    assert set(before.values()) == {"train", "test"} and len(before) == 40
    scenes(tmp_path / "0 more", 25, seed=1)
    for i in range(10):
        (tmp_path / f"{i:03d}.png").write_bytes(b"")
    assert {is_in_test_split(f"{i:03d}.png", 0.3) for i in range(10)} == {False, True}
    after = split_of()
    common = before.keys() & after.keys()
    assert len(common) == 30 and len(after) == 55
    assert all(before[image] == after[image] for image in common)


def test_classes_are_first_folders_and_stay_with_their_images(tmp_path, config):
    """Also where files before them cannot be read."""
    for i in range(60):
        name = ("ape", "bee", "cat")[i % 3]
        save(tmp_path / name / f"{i // 6}" / f"{i}.png", np.full((8, 8, 3), i % 3, np.uint8))
    for name in ("ape/0/0.png", "bee/1/broken.png", "bee/0/.hidden.png"):
        (tmp_path / name).write_bytes(b"\x89PNG")
    config.folder.update(path=str(tmp_path), side=8, test=0.3, labels=True)
    dataset = build(config)
    assert sum(split.size for split in dataset.splits.values()) == 59
    for split in dataset.splits.values():
        assert split.labels.dtype == np.int32 and split.images.shape[1:] == (8, 8, 3)
        np.testing.assert_array_equal(split.images[:, 0, 0, 0], split.labels)
        assert set(split.labels) == {0, 1, 2}
    config.folder.labels = False
    assert all(split.labels is None for split in build(config).splits.values())
    np.testing.assert_array_equal(class_labels(["b/x/1.png", "B/2.png", "b/3.png"]), [1, 0, 1])


def test_one_line_lists_all_skipped_files(tmp_path, config, caplog):
    scenes(tmp_path, 20)
    for i in range(5):
        (tmp_path / f"no {i}.jpg").write_text("no image")
    for kind in ("png", "gif"):
        file = save(tmp_path / f"half.{kind}", NOISE)
        file.write_bytes(file.read_bytes()[:1000])
    for name in ("a.txt", "b.txt", "README"):
        (tmp_path / name).touch()
    config.folder.update(path=str(tmp_path), side=8, test=0.3)
    build(config)
    (warning,) = (r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)
    reasons = (
        "2 damaged (half.gif, half.png); 5 no images (no 0.jpg, no 1.jpg, no 2.jpg, ...);"
        " 3 other types (.txt, no extension)"
    )
    assert warning == f"skipped 10 entries of {tmp_path}: {reasons}"


def test_files_that_are_broken_are_left_out(tmp_path, monkeypatch):
    files = [save(tmp_path / f"a.{kind}", NOISE) for kind in ("jpg", "png", "bmp", "webp")]
    assert all(read_image(file, 8).shape == (8, 8, 3) for file in files)
    for i, file in enumerate(files):
        cut = file.with_name(f"cut{i}{file.suffix}")
        cut.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        assert read_image(cut, 8) in ("damaged", "no images")
    (tmp_path / "empty.png").touch()
    assert read_image(tmp_path / "empty.png", 8) == "no images"
    assert read_image(tmp_path / "gone.png", 8) == "damaged"
    read, places, reasons = read_images([tmp_path / "empty.png", *files], 8)
    assert read.shape == (4, 8, 8, 3) and places.tolist() == [1, 2, 3, 4]
    assert reasons == {0: "no images"}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32 * 32 // 2 - 1)  # what PIL takes for a bomb
    assert read_image(files[1], 8) == "too many pixels"


@pytest.mark.parametrize(
    "kind", ["bmp", "gif", "j2k", "pcx", "png", "ppm", "qoi", "tga", "tiff", "webp"]
)
def test_other_types_are_read(tmp_path, kind):
    if f".{kind}" not in Image.registered_extensions():
        pytest.skip(f"this Pillow does not write {kind}")
    file = save(tmp_path / f"a.{kind}", Image.new("RGB", (9, 9), (30, 60, 90)))
    assert find_image_files(tmp_path).names == [file.name]
    read = read_image(file, 4)
    # Compressed formats are exact to a few levels.
    assert np.abs(read.astype(int) - (30, 60, 90)).max() <= 3


def test_postscript_is_never_run(tmp_path):
    eps = save(tmp_path / "a.eps", NOISE)
    assert find_image_files(tmp_path).names == []
    assert read_image(eps.rename(tmp_path / "a.png"), 8) == "no images"


def test_a_png_may_have_much_text(tmp_path):
    info = PngInfo()
    info.add_text("parameters", "a" * (3 << 20), zip=True)
    info.add_itxt("notes", "b" * (3 << 20), zip=True)
    read = read_image(save(tmp_path / "a.png", NOISE, pnginfo=info), 32)
    np.testing.assert_array_equal(read, NOISE)


def exif(orientation: int) -> bytes:
    """Return EXIF of an orientation, an exposure bias of -1/0, and a latitude of 0/0."""

    def tag(number: int, kind: int, n: int, value: int) -> bytes:
        return struct.pack("<HHII", number, kind, n, value)

    tags = tag(0x112, 3, 1, orientation) + tag(0x8769, 4, 1, 50) + tag(0x8825, 4, 1, 68)
    bias = struct.pack("<H", 1) + tag(0x9204, 10, 1, 86) + bytes(4)
    latitude = struct.pack("<H", 1) + tag(0x2, 5, 3, 94) + bytes(4)
    data = struct.pack("<ii", -1, 0) + bytes(24)
    head = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 3)
    return head + tags + bytes(4) + bias + latitude + data


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_damaged_tags_do_not_lose_a_photo_or_its_orientation(tmp_path, kind, monkeypatch):
    def fail(*args: object) -> None:  # as in some versions of Pillow
        raise ZeroDivisionError

    monkeypatch.setattr(Image.Exif, "tobytes", fail)
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, :20] = 255  # white on the left
    file = tmp_path / f"a.{kind}"
    quality = {} if kind == "png" else {"quality": 95}
    save(file, image, exif=exif(6), **quality)
    upright = read_image(file, 20)
    assert upright[:8].min() > 200 and upright[12:].max() < 50
    with Image.open(file) as opened:
        assert opened.getexif().get_ifd(0x8825)[2][0].denominator == 0
    unreadable = save(tmp_path / f"b.{kind}", image, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert read_images([unreadable], 20)[0][0, :, :8].min() > 200


def test_images_are_turned_upright(tmp_path):
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, :20] = 255  # white on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned a quarter to the right: what was left is above
    upright = read_image(save(tmp_path / "a.png", image, exif=exif), 20)
    assert upright[:9].min() == 255 and upright[11:].max() == 0
    assert read_image(save(tmp_path / "b.png", image), 20)[:, :9].min() == 255


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("L", (4, 4), 90), 90),
        (Image.new("1", (4, 4), 1), 255),
        (Image.new("LA", (4, 4), (90, 7)), 90),
        (Image.new("RGBA", (4, 4), (1, 2, 3, 0)), (1, 2, 3)),
        (Image.fromarray(np.full((4, 4), 0x5AFF, np.uint16)), 0x5A),
        (Image.new("L", (4, 4), 90).convert("P"), 90),
    ],
    ids=lambda x: x.mode if isinstance(x, Image.Image) else "",
)
def test_every_mode_becomes_rgb(tmp_path, image, expected):
    read = read_image(save(tmp_path / "a.png", image), 4)
    np.testing.assert_array_equal(read, np.broadcast_to(expected, (4, 4, 3)))
    assert read.dtype == np.uint8


def test_modes_of_other_kinds_of_files(tmp_path):
    palette = Image.new("L", (4, 4), 90).convert("P")
    transparent = save(tmp_path / "a.png", palette, transparency=bytes(range(256)))
    np.testing.assert_array_equal(read_image(transparent, 4), np.full((4, 4, 3), 90))
    cyan = save(tmp_path / "a.jpg", Image.new("CMYK", (16, 16), (255, 0, 0, 0)))
    assert np.abs(read_image(cyan, 4).astype(int) - (0, 255, 255)).max() < 5
    for levels, expected in (((0.2, 1.0), (51, 255)), ((0.2, 300.0), (0, 255)), ((np.nan,) * 2, 0)):
        floats = save(tmp_path / "a.tiff", Image.fromarray(np.array([levels] * 2, np.float32)))
        np.testing.assert_array_equal(read_image(floats, 2)[0, :, 0], expected)
    whole = Image.fromarray(np.full((2, 2), 0x5AFF, np.int32))  # as older versions read 16 bits
    assert np.asarray(rgb(whole)).tolist() == np.full((2, 2, 3), 0x5A).tolist()


def test_the_central_square_is_resized_without_aliasing():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (12, 37, 3), np.uint8)
    np.testing.assert_array_equal(square(Image.fromarray(noise), 12), noise[:, 12:24])
    tall = noise.swapaxes(0, 1)
    np.testing.assert_array_equal(square(Image.fromarray(tall), 12), tall[12:24])
    # As resizing the whole to that height and cutting the middle out.
    wide = Image.fromarray(rng.integers(0, 256, (20, 60, 3), np.uint8))
    whole = np.asarray(wide.resize((15, 5), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(square(wide, 5), whole[:, 5:10])
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    small = square(Image.fromarray(board.astype(np.uint8)).convert("RGB"), 8).astype(int)
    assert np.abs(small - 127).max() <= 2
    assert square(Image.new("RGB", (1, 9), (7, 8, 9)), 4)[3, 3].tolist() == [7, 8, 9]


def test_a_large_jpeg_is_read_as_if_whole(tmp_path):
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8))
    smooth = coarse.resize((640, 480), Image.Resampling.BICUBIC)
    read = read_image(save(tmp_path / "a.jpg", smooth, quality=95), 32).astype(int)
    assert np.abs(read - square(smooth, 32)).max() < 6


def test_channel_statistics(monkeypatch):
    monkeypatch.setattr(images, "_CHUNK", 3)
    drawn = np.random.default_rng(0).integers(0, 200, (7, 5, 6, 3), np.uint8) // (1, 2, 3)
    drawn = drawn.astype(np.uint8)
    mean, std = channel_statistics(drawn)
    np.testing.assert_allclose(mean, (drawn / 255).mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, (drawn / 255).std(axis=(0, 1, 2)), rtol=1e-12)
    assert channel_statistics(np.full((2, 4, 4, 3), 51, np.uint8)) == ([0.2] * 3, [1 / 255] * 3)


def test_constant_images_render_to_numbers(tmp_path, config):
    for i in range(20):
        save(tmp_path / f"{i}.png", np.full((16, 16, 3), 255, np.uint8))
    config.folder.update(path=str(tmp_path), side=16, test=0.3)
    dataset = build(config)
    record, transform_params = dataset.splits["train"].draw(
        np.random.default_rng(0), np.arange(3), 1
    )
    rendered = dataset.render(record[:, 0], transform_params[:, 0])
    assert np.isfinite(rendered).all()
