"""Images of a train split on the devices, so that the host's batches have their indices only."""

import math
from dataclasses import dataclass

import jax
import numpy as np

from contextssl_jax.data.contexts import ContextBatch
from contextssl_jax.data.dataset import Dataset, Record
from contextssl_jax.data.stored import StoredImages
from contextssl_jax.errors import UserError


@dataclass(frozen=True)
class ImageIndices:
    """The split of stored images whose records are indices of the images."""

    stored: StoredImages

    @property
    def size(self) -> int:
        """Return the number of records."""
        return self.stored.size

    @property
    def labels(self) -> np.ndarray | None:
        """Return the classes of the images."""
        return self.stored.labels

    def draw(
        self, rng: np.random.Generator, indices: np.ndarray, views: int
    ) -> tuple[Record, np.ndarray]:
        """See Split.draw; the record is int32 [n, 1], and the views are those of `stored`."""
        transform_params = self.stored.draw_params(rng, len(indices), views)
        return indices.astype(np.int32)[:, None], transform_params


def index_images(dataset: Dataset) -> tuple[ImageIndices, np.ndarray]:
    """Return the train split by index, and its images as a table for `look_up`.

    Returns:
      split: the train split, whose records are rows of the table.
      table: the images, uint8 [size, S * S * 3]. With one row per image, a TPU reads rows as they
        lie; it would convert the layout of a table with more axes in every step.

    Raises:
      UserError: the data set does not have its images in memory.
    """
    split = dataset.splits["train"]
    if not isinstance(split, StoredImages):
        raise UserError(
            f"--config.data.on_device: the views of {dataset.name} are not made from images in"
            " memory. Set it to False."
        )
    return ImageIndices(split), split.images.reshape(split.size, -1)


def look_up(table: jax.Array, batch: ContextBatch) -> ContextBatch:
    """Replace the records of a batch, int32 [B, K, 1], by images, uint8 [B, K, 1, S, S, 3].

    The barrier keeps the program after it, and thus its rounding, that of a batch of images.
    """
    side = math.isqrt(table.shape[1] // 3)
    rows = table.at[batch.record].get(mode="promise_in_bounds")
    images = rows.reshape(*batch.record.shape, side, side, 3)
    return batch._replace(record=jax.lax.optimization_barrier(images))
