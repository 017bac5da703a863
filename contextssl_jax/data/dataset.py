"""The data set: records whose views are sampled on the host and rendered on the device."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.transforms import ParameterSpace, apply_groups

Record = Any  # a pytree of arrays; input of `render` beside the transform parameters


class Split(Protocol):
    """A random-access collection of records."""

    @property
    def size(self) -> int:
        """Number of records."""

    @property
    def labels(self) -> np.ndarray | None:
        """Classes of the records, int32 [size]; None if the data set has none."""

    def draw(
        self, rng: np.random.Generator, indices: np.ndarray, views: int
    ) -> tuple[Record, np.ndarray]:
        """Sample views of the records at indices [n].

        Returns:
          record: leaves [n, v, ...]; v = 1 where all views share the leaf, else v = views.
          transform_params: in the groups' own units, conditioned groups first, then unconditioned
            transforms, float32 [n, views, D].
        """


@dataclass(frozen=True)
class Dataset:
    """A source of records, the space of their transform parameters, and how views are rendered.

    `render` takes a record's leaves [N, ...] and transform parameters [N, D] and returns
    normalized images, float32 [N, H, W, 3]. Images are normalized by the channels' mean and
    standard deviation, [3] each, in [0, 1]. `classes` is the number of classes, 0 if the data set
    has no labels.
    """

    name: str
    space: ParameterSpace
    splits: Mapping[str, Split]  # "train" and "test"
    render: Callable[[Record, jax.Array], jax.Array]
    pixel_mean: np.ndarray
    pixel_std: np.ndarray
    classes: int

    def pixels(self, images: Any) -> Any:
        """Map normalized images, a NumPy or JAX array, back to [0, 1] for display."""
        return (images * self.pixel_std + self.pixel_mean).clip(0, 1)


@dataclass(frozen=True)
class DatasetSpec:
    """How a data set is built from a config.

    Attributes:
      build: builds the data set.
      dummy: builds a data set of the same shapes without reading files or rendering, for plans;
        None if `build` is as cheap, or if the shapes are not known without the data.
    """

    build: Callable[[ConfigDict], Dataset]
    dummy: Callable[[ConfigDict], Dataset] | None = None


def make_dataset(
    name: str,
    space: ParameterSpace,
    splits: Mapping[str, Split],
    draw_image: Callable[[Record, jax.Array], jax.Array],
    mean: Sequence[float],
    std: Sequence[float],
) -> Dataset:
    """Make a data set whose images are drawn, transformed by the image groups, and normalized.

    Args:
      name: name of the data set.
      space: groups of the transform parameters.
      splits: "train" and "test".
      draw_image: (record leaves [N, ...], transform parameters [N, D]) -> images in [0, 1],
        float32 [N, H, W, 3], before any image group.
      mean: mean of each channel, in [0, 1].
      std: standard deviation of each channel.
    """
    shift, scale = np.asarray(mean, np.float32), np.asarray(std, np.float32)

    def render(record: Record, transform_params: jax.Array) -> jax.Array:
        images = draw_image(record, transform_params)
        return (apply_groups(space.all_groups, images, transform_params) - shift) / scale

    labels = splits["train"].labels
    classes = 0 if labels is None else int(labels.max()) + 1
    return Dataset(name, space, splits, render, shift, scale, classes)


def from_bytes(record: Record, transform_params: jax.Array) -> jax.Array:
    """Convert stored images, uint8 [N, H, W, 3], to float32 in [0, 1]; see make_dataset."""
    del transform_params
    return record.astype(np.float32) / 255
