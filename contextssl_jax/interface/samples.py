"""Example pairs of a data set, for demonstrations: images and what happened between them."""

from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.data import DATASETS
from contextssl_jax.data.dataset import Dataset
from contextssl_jax.errors import UserError, lookup
from contextssl_jax.evaluation.views import Views, draw_views
from contextssl_jax.interface.checks import split_groups
from contextssl_jax.interface.loading import (
    released_config,
    released_models,
    user_errors_as_value_errors,
)
from contextssl_jax.interface.model import Model
from contextssl_jax.run.trained_model import restore_config

_BATCH = 64  # views that are rendered at once


class Pairs(NamedTuple):
    """K images before and after a transformation.

    Pass a group's action to `Model.context` to show it, and leave it out to hide it.
    """

    x: np.ndarray  # uint8 [K, H, W, 3]
    y: np.ndarray  # uint8 [K, H, W, 3]
    actions: dict[str, np.ndarray]  # from x to y, by group, in the group's units, [K, entries]
    x_params: dict[str, np.ndarray]  # transform parameters of x, by group, [K, entries]
    y_params: dict[str, np.ndarray]  # of y
    labels: np.ndarray | None  # classes, int32 [K]


def sample_pairs(
    source: Model | str,
    pairs: int,
    *,
    seed: int = 0,
    split: str = "test",
    data_dir: str | None = None,
) -> Pairs:
    """Draw pairs of views of different records.

    Args:
      source: a model, whose options define the data set and how views are drawn; or a data set
        such as "objects3d", with the options of the released model that was trained on it.
      pairs: K.
      seed: determines the pairs.
      split: "test" or "train".
      data_dir: folder of prepared data sets, where they are files.

    Raises:
      ValueError: an argument is wrong, or the data set is not available.
    """
    with user_errors_as_value_errors():
        config = _options(source)
        if data_dir is not None:
            config.data.dir = data_dir
        dataset = lookup(DATASETS, config.data.name, "source").build(config)
        records = lookup(dataset.splits, split, "split")
        if not 1 <= pairs <= records.size:
            raise ValueError(f"pairs: {pairs}, expected 1 to {records.size}.")
        views = draw_views(records, (seed,), pairs, 2)
    images, params = _render(dataset, views), views.transform_params
    space = dataset.space.with_units(standardize_params=False, standardize_actions=False)
    actions = np.asarray(space.actions(params[:, 0], params[:, 1]))
    return Pairs(
        x=images[:, 0],
        y=images[:, 1],
        actions={n: actions[:, space.action_group_ids == g] for g, n in enumerate(space.names)},
        x_params=split_groups(space.all_groups, params[:, 0]),
        y_params=split_groups(space.all_groups, params[:, 1]),
        labels=views.labels,
    )


def _options(source: Model | str) -> ConfigDict:
    """Return the options of a source, with views that are rendered on demand."""
    if isinstance(source, Model):
        config = restore_config(source.config)
    else:
        known = {c.data.name: c for c in map(released_config, released_models())}
        if source not in known:
            raise UserError(f"source: {source!r} is none of {', '.join(known)}. Pass a model.")
        config = known[source]
    if config.data.name == "objects3d":
        config.objects3d.pool = 0  # a pool, rendered in advance, only speeds up training
    return config


def _render(dataset: Dataset, views: Views) -> np.ndarray:
    """Render all views, uint8 [K, 2, H, W, 3]."""
    render = jax.jit(dataset.render)
    rows = np.arange(-(-views.total // _BATCH) * _BATCH).clip(max=views.total - 1)
    batches = [render(*views.rows(batch)) for batch in rows.reshape(-1, _BATCH)]
    pixels = dataset.pixels(np.concatenate(jax.device_get(batches))[: views.total])
    images = (255 * pixels).round().astype(np.uint8)
    return images.reshape(-1, 2, *images.shape[1:])
