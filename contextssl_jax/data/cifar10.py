"""CIFAR-10, in memory, through TFDS."""

from ml_collections import ConfigDict

from contextssl_jax.data.dataset import Dataset
from contextssl_jax.data.stored import stored_dataset
from contextssl_jax.data.tfds_source import load_images

# Of the train split's pixels, in [0, 1].
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)


def build(config: ConfigDict) -> Dataset:
    """Builds CIFAR-10 from `data.dir`, `groups`, `nuisances` and the groups' sections.

    Raises:
      UserError: the data set is neither prepared nor within reach.
    """
    splits = {name: load_images("cifar10", name, config.data.dir) for name in ("train", "test")}
    return stored_dataset("cifar10", config, splits, MEAN, STD)
