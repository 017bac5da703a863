"""Data sets by name; a new one is one file and one line here."""

from collections.abc import Callable

from ml_collections import ConfigDict

from contextssl_jax.data import bench3d, cifar10, folder, synthetic, tfds_images
from contextssl_jax.data.dataset import Dataset
from contextssl_jax.data.objects3d import world as objects3d

DATASETS: dict[str, Callable[[ConfigDict], Dataset]] = {
    "3diebench": bench3d.build,
    "cifar10": cifar10.build,
    "folder": folder.build,
    "objects3d": objects3d.build,
    "synthetic": synthetic.build,
    "tfds": tfds_images.build,
}
