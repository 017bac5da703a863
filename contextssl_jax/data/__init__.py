"""Data sets by name; a new data set is one file and one line here."""

from contextssl_jax.data import bench3d, cifar10, folder, synthetic, tfds_images
from contextssl_jax.data.dataset import DatasetSpec
from contextssl_jax.data.objects3d import world as objects3d

DATASETS: dict[str, DatasetSpec] = {
    "3diebench": bench3d.SPEC,
    "cifar10": cifar10.SPEC,
    "folder": folder.SPEC,
    "objects3d": objects3d.SPEC,
    "synthetic": synthetic.SPEC,
    "tfds": tfds_images.SPEC,
}
