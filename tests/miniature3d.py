"""A few objects in the layout of 3DIEBench, for tests to write, and to damage."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from contextssl_jax.data.bench3d.prepare import prepare

VIEWS, EDGE = 8, 24


def write(root: Path, train: int = 12, test: int = 6) -> SimpleNamespace:
    """Writes objects and lists; returns the root, and the names of the objects by split."""
    rng = np.random.default_rng(0)
    names = [f"{2691156 + i % 3:08d}/{i:032x}" for i in range(train + test)]
    for name in names:
        folder = root / name
        folder.mkdir(parents=True)
        for view in range(VIEWS):
            coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
            coarse.resize((EDGE, EDGE)).save(folder / f"image_{view}.jpg", quality=90)
            angles, rest = rng.uniform(-np.pi / 2, np.pi / 2, 3), rng.random(4)
            np.save(folder / f"latent_{view}.npy", np.concatenate([angles, rest]))
    splits = {"train": names[:train], "test": names[train:]}
    write_lists(root, splits)
    return SimpleNamespace(root=root, train=splits["train"], test=splits["test"])


def prepared(folder: Path, side: int) -> SimpleNamespace:
    """Writes the same, and its shards in both layouts; adds their folders, `out` and `npy`."""
    made = write(folder / "source")
    made.out, made.npy = folder / "out", folder / "npy"
    prepare(str(made.root), None, str(made.out), side, 1)
    prepare(str(made.root), None, str(made.npy), side, 1, "npy")
    return made


def write_lists(folder: Path, splits: dict[str, list[str]]) -> None:
    """Writes the lists as they are written officially: slashes on both sides, int64 classes."""
    for split, name in (("train", "train"), ("test", "val")):
        lines = [f"/{line}/" for line in splits[split]]
        np.save(folder / f"{name}_images.npy", np.array(lines))
        labels = np.array([int(line.split("/")[0]) % 3 for line in splits[split]], np.int64)
        np.save(folder / f"{name}_labels.npy", labels)
