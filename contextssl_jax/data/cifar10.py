"""CIFAR-10, in memory, through TFDS."""

from functools import partial

from ml_collections import ConfigDict

from contextssl_jax.data.dataset import Dataset, DatasetSpec
from contextssl_jax.data.stored import dummy_stored_dataset, stored_dataset
from contextssl_jax.data.tfds_source import load_images

# Channel statistics of the train split's pixels, in [0, 1].
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)


def build(config: ConfigDict) -> Dataset:
    """Build CIFAR-10 from `data.dir`, `groups`, `unconditioned_transforms` and their sections.

    Raises:
      UserError: the data set is neither prepared nor can be downloaded.
    """
    splits = {name: load_images("cifar10", name, config.data.dir) for name in ("train", "test")}
    return stored_dataset("cifar10", config, splits, MEAN, STD)


SPEC = DatasetSpec(build, partial(dummy_stored_dataset, side=32))
