"""Data sets by name; a new one is one file and one line here."""

from collections.abc import Callable

from ml_collections import ConfigDict

from contextssl_jax.data import cifar10, synthetic
from contextssl_jax.data.dataset import Dataset

DATASETS: dict[str, Callable[[ConfigDict], Dataset]] = {
    "cifar10": cifar10.build,
    "synthetic": synthetic.build,
}
