"""Any image data set of TFDS, with or without classes, in memory."""

from ml_collections import ConfigDict

from contextssl_jax.data.dataset import Dataset, DatasetSpec
from contextssl_jax.data.images import channel_statistics
from contextssl_jax.data.stored import dummy_stored_dataset, stored_dataset
from contextssl_jax.data.tfds_source import load_images
from contextssl_jax.errors import UserError


def build(config: ConfigDict) -> Dataset:
    """Build the data set from `tfds`, `groups`, `unconditioned_transforms` and their sections.

    Raises:
      UserError: the data set cannot be loaded, or its images are not square or differ in size.
    """
    options = config.tfds
    try:
        splits = {
            split: load_images(options.name, options[split], config.data.dir, options.side)
            for split in ("train", "test")
        }
    except UserError as error:
        raise UserError(f"--config.tfds: {error}") from error
    sides = [images.shape[1] for images, _ in splits.values()]
    if len(set(sides)) > 1:
        raise UserError(
            f"--config.tfds.side: images have {sides[0]} pixels in the train split and {sides[1]}"
            " in the test split. Set a side."
        )
    return stored_dataset(options.name, config, splits, *channel_statistics(splits["train"][0]))


def _dummy(config: ConfigDict) -> Dataset:
    if config.tfds.side is None:
        raise UserError(
            "--config.tfds.side: not set, and a plan reads no images to infer it from. Set a side."
        )
    return dummy_stored_dataset(config, config.tfds.side)


SPEC = DatasetSpec(build, _dummy)
