"""What a model needs of its data set besides its weights, saved with them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.data.dataset import Dataset, Record, from_bytes
from contextssl_jax.errors import UserError
from contextssl_jax.transforms import ParameterSpace, build_groups


class InputStatistics(NamedTuple):
    """Image size, and statistics that standardize images, transform parameters and actions."""

    image_size: np.ndarray  # side of the square images in pixels, []
    classes: np.ndarray  # number of classes, 0 without labels, []
    scenes: np.ndarray  # 1 if views are of 3D scenes, whose groups are those of SCENE_GROUPS, []
    pixel_mean: np.ndarray  # in [0, 1], [3]
    pixel_std: np.ndarray  # [3]
    param_mean: np.ndarray  # of conditioned groups, [T]
    param_std: np.ndarray  # [T]
    action_mean: np.ndarray  # [A]
    action_std: np.ndarray  # [A]

    def to_json(self) -> dict[str, Any]:
        """Return the arrays as nested lists, which represent float32 exactly."""
        return {name: value.tolist() for name, value in self._asdict().items()}


def input_statistics(dataset: Dataset) -> InputStatistics:
    """Return the statistics of a data set; draws one view of it."""
    record, transform_params = dataset.splits["train"].draw(
        np.random.default_rng((0, 0)), np.arange(1), 2
    )
    view = jax.tree.map(lambda leaf: leaf[:, 0], (record, transform_params))
    space = dataset.space
    values = (
        jax.eval_shape(dataset.render, *view).shape[1],
        dataset.classes,
        any(group.from_scene for group in space.all_groups),
        *(dataset.pixel_mean, dataset.pixel_std),
        *(space.param_mean, space.param_std, space.action_mean, space.action_std),
    )
    return InputStatistics(*(np.asarray(value, np.float32) for value in values))


def parse_statistics(values: Mapping[str, Any], source: str) -> InputStatistics:
    """Return saved statistics.

    Args:
      values: from `InputStatistics.to_json`, or arrays by name.
      source: option or argument and file, for the error message.

    Raises:
      UserError: a value is missing, or is not numbers.
    """
    try:
        return InputStatistics(
            *(np.asarray(values[name], np.float32) for name in InputStatistics._fields)
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{source} has no statistics of its data set ({error}). Save it with this version."
        ) from error


def images_dataset(config: ConfigDict, statistics: InputStatistics) -> Dataset:
    """Build a data set without records, whose `render` takes images, uint8 or in [0, 1].

    Args:
      config: the options of the model.
      statistics: of its data set.

    Raises:
      UserError: a group is unknown; groups of one's own must be registered first.
    """
    side, scenes = int(statistics.image_size), bool(statistics.scenes)
    conditioned, unconditioned = build_groups(config, side, scenes)
    space = ParameterSpace(
        *(conditioned, unconditioned, statistics.param_mean, statistics.param_std),
        *(statistics.action_mean, statistics.action_std),
    )
    mean, std = statistics.pixel_mean, statistics.pixel_std

    def render(record: Record, transform_params: jax.Array) -> jax.Array:
        images = from_bytes(record, transform_params) if record.dtype == np.uint8 else record
        normalized: jax.Array = (images - mean) / std
        return normalized

    return Dataset(config.data.name, space, {}, render, mean, std, int(statistics.classes))
