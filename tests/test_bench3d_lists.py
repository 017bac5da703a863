"""The official lists: what they say, and what is refused."""

import pickle
import shutil

import miniature3d
import numpy as np
import pytest

from contextssl_jax.data.bench3d.lists import find_lists, read_lists
from contextssl_jax.errors import UserError

NAMES = ["02691156/dc8d9003cde43b66c8727b27ee96a4b7", "04090263/6cbf83cff8dc7b23", "1/a.b"]


@pytest.fixture
def folder(tmp_path):
    miniature3d.write_lists(tmp_path, {"train": [f"02691156/{i}" for i in range(4)], "test": NAMES})
    np.save(tmp_path / "val_labels.npy", np.array([0, 54, 7]))
    return tmp_path


def test_names_lose_their_slashes_and_labels_are_int32(folder):
    splits = read_lists(folder)
    assert splits["train"].names == tuple(f"02691156/{i}" for i in range(4))
    assert splits["test"].names == tuple(NAMES)
    assert splits["test"].labels.tolist() == [0, 54, 7]
    assert splits["test"].labels.dtype == np.int32


def test_lists_are_searched_in_order(folder, tmp_path):
    with pytest.raises(UserError, match="train_images.npy: found neither in .*/x nor in .*/y.*SIE"):
        find_lists([tmp_path / "x", tmp_path / "y"])
    (tmp_path / "y").mkdir()
    shutil.copy(folder / "val_labels.npy", tmp_path / "y")
    assert find_lists([tmp_path / "x", tmp_path / "y", folder]) == tmp_path / "y"


@pytest.mark.parametrize(
    "line",
    [
        "/../../etc/", "/02691156/../", "../02691156", "/02691156/..", "/a/b/c/", "/a/", "/", "",
        "/etc/passwd/x", "/./a/", "/.git/a/", "/02691156//a/", "/02691156/a\\b/", "/02691156/a b/",
        "/02691156/a\x00b/", "/02691156/é/", "/02691156/a\n/", "C:/a/b",
    ],
)  # fmt: skip
def test_a_path_that_could_lead_out_is_refused(folder, line):
    np.save(folder / "val_images.npy", np.array(["/1/a/", line, "/1/b/"]))
    with pytest.raises(UserError, match="val_images.npy: .* is not an object's folder") as caught:
        read_lists(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("val_images", ["/1/a/", "/1/a/", "/1/b/"], "val_images.npy: names 1/a 2 times"),
        (
            "val_images",
            ["/1/a/", "/1/b/"],
            "val_images.npy: names 2 objects, but there are 3 labels",
        ),
        ("val_images", ["/1/a/", "/02691156/2/", "/1/b/"], "in both splits, such as 02691156/2"),
        ("val_images", [1, 2, 3], r"val_images.npy: has int64 \[3\], not the names"),
        ("val_images", [["/1/a/"]] * 3, r"val_images.npy: has <U5 \[3, 1\], not the names"),
        ("val_images", np.array([], str), r"val_images.npy: has <U1 \[0\], not the names"),
        ("val_labels", [0, -1, 2], "val_labels.npy: has the negative label -1"),
        ("val_labels", [0.0, 1.0, 2.0], r"val_labels.npy: has float64 \[3\], not an integer"),
        ("val_labels", [[0], [1], [2]], r"val_labels.npy: has int64 \[3, 1\]"),
    ],
)
def test_a_wrong_list_is_one_line_that_names_it(folder, file, content, message):
    np.save(folder / f"{file}.npy", np.array(content))
    with pytest.raises(UserError, match=message) as caught:
        read_lists(folder)
    assert "\n" not in str(caught.value)


def test_pickles_are_never_read(folder):
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("a pickle was read",)

    np.save(folder / "val_images.npy", np.array([Trap()] * 3, object))
    with pytest.raises(UserError, match="val_images.npy: cannot be read .*allow_pickle=False"):
        read_lists(folder)
    (folder / "val_images.npy").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError, match="val_images.npy: cannot be read .*magic string"):
        read_lists(folder)
    (folder / "val_images.npy").write_bytes(b"")
    with pytest.raises(UserError, match="val_images.npy: cannot be read"):
        read_lists(folder)
    (folder / "val_images.npy").unlink()
    with pytest.raises(UserError, match="val_images.npy: is missing. Copy .*SIE"):
        read_lists(folder)


def test_a_header_that_claims_too_much_is_no_crash(folder):
    content = (folder / "val_labels.npy").read_bytes()
    (folder / "val_labels.npy").write_bytes(
        content.replace(b"(3,), }" + b" " * 12, b"(" + b"9" * 17 + b",)}")
    )
    with pytest.raises(UserError, match="val_labels.npy: cannot be read"):
        read_lists(folder)
