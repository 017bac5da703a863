"""Any image data set of TFDS, with or without classes, in memory."""

from ml_collections import ConfigDict

from contextssl_jax.data.dataset import Dataset
from contextssl_jax.data.images import channel_statistics
from contextssl_jax.data.stored import stored_dataset
from contextssl_jax.data.tfds_source import load_images
from contextssl_jax.errors import UserError


def build(config: ConfigDict) -> Dataset:
    """Builds the data set from the sections `tfds` and the groups', `groups` and `nuisances`.

    Raises:
      UserError: the data set is not within reach, or its images are not square and of one size.
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
            f"--config.tfds.side: set it, since images have {sides[0]} pixels in the train split"
            f" and {sides[1]} in the test split"
        )
    return stored_dataset(options.name, config, splits, *channel_statistics(splits["train"][0]))
