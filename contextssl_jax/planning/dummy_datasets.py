"""Data sets of the right shapes without their data, so that a plan needs none."""

from ml_collections import ConfigDict

from contextssl_jax.data import DATASETS
from contextssl_jax.data.dataset import Dataset
from contextssl_jax.errors import lookup


def dummy_dataset(config: ConfigDict) -> Dataset:
    """Build the dummy that the config's data set declares, or the data set itself if it has none.

    The groups, and so transform parameters and rendering, are the config's; the records are black,
    and just enough for one context.

    Raises:
      UserError: an option is wrong, or the image size is not set.
    """
    spec = lookup(DATASETS, config.data.name, "--config.data.name")
    return (spec.dummy or spec.build)(config)


def reads_data(config: ConfigDict) -> bool:
    """Return whether `dummy_dataset` builds the data set itself."""
    return DATASETS[config.data.name].dummy is None
