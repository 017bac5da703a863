"""The views nearest to the predicted target of (x, a) under each context (Figures 1 and 6)."""

from typing import Any, NamedTuple

import jax
import numpy as np

from contextssl_jax.data.dataset import Dataset
from contextssl_jax.evaluation.contexts import Conditions
from contextssl_jax.evaluation.evaluators.retrieval import nearest
from contextssl_jax.evaluation.views import Views
from contextssl_jax.transforms import ParameterSpace

_RECORDS, _NEAREST = 12, 6
_SOURCE, _TARGET = 0, 1  # views of a record
_SIDE = 96  # largest side of the images, pixels
_BATCH = 64  # views that are rendered at once


class Neighbours(NamedTuple):
    """Sources, targets and nearest views of M records under E x C conditions.

    Every view that occurs is stored once, as one of I images.
    """

    environments: tuple[str, ...]
    lengths: tuple[int, ...]
    groups: tuple[str, ...]
    images: np.ndarray  # uint8 [I, H, W, 3]
    distances: np.ndarray  # of each view's parameters from its record's target, [I, G]
    sources: np.ndarray  # indices of images, [M]
    targets: np.ndarray  # likewise, [M]
    nearest: np.ndarray  # likewise, nearest first, [M, E, C, K]
    mean_distances: np.ndarray  # of all candidates of a record, [M, G]


def find_neighbours(
    dataset: Dataset, views: Views, bank: np.ndarray, queries: np.ndarray, conditions: Conditions
) -> Neighbours:
    """Find the views nearest to z_r of (view 0, the action to view 1), except the source.

    Distances are root-mean-square over a group's parameters, in standard deviations.

    Args:
      dataset: renders the views.
      views: V views of each record.
      bank: view embeddings z⁺, [U, n, V, P].
      queries: predicted targets z_r of view 0 and the action to each view, [E, C, n, V, P].
      conditions: the U conditions, of E environments and C lengths.
    """
    v = views.transform_params.shape[1]
    records = views.part(slice(_RECORDS))
    m = len(records.indices)
    candidates = [view for view in range(v) if view != _SOURCE]
    found = np.array(
        [
            [
                [
                    nearest(
                        queries[e, c, i, _TARGET],
                        bank[conditions.row(name, length), i],
                        candidates,
                        _NEAREST,
                    )
                    for c, length in enumerate(conditions.lengths)
                ]
                for e, name in enumerate(conditions.environments)
            ]
            for i in range(m)
        ]
    )
    first = np.arange(m) * v
    rows = found + first[:, None, None, None]
    used, index = np.unique(
        np.concatenate([first + _SOURCE, first + _TARGET, rows.ravel()]), return_inverse=True
    )
    distances = _distances(dataset.space, records.transform_params)
    return Neighbours(
        tuple(conditions.environments),
        conditions.lengths,
        dataset.space.names,
        _render(dataset, records, used),
        distances.reshape(m * v, -1)[used],
        index[:m],
        index[m : 2 * m],
        index[2 * m :].reshape(rows.shape),
        distances[:, candidates].mean(axis=1),
    )


def _distances(space: ParameterSpace, transform_params: np.ndarray) -> np.ndarray:
    """Return each view's distance from its record's target by group, [m, V, D] -> [m, V, G]."""
    t = np.asarray(space.standardize(transform_params))
    membership = np.eye(len(space.names))[space.param_group_ids]
    squared = (t - t[:, _TARGET : _TARGET + 1]) ** 2 @ (membership / membership.sum(axis=0))
    return np.sqrt(squared)


def _render(dataset: Dataset, views: Views, rows: np.ndarray) -> np.ndarray:
    """Render some of the views in batches of one shape, reduced to _SIDE, uint8 [I, H, W, 3]."""

    @jax.jit
    def draw(record: Any, transform_params: jax.Array) -> jax.Array:
        images = dataset.pixels(dataset.render(record, transform_params))
        n, height, width, channels = images.shape
        scale = min(1.0, _SIDE / max(height, width))
        shape = n, round(scale * height), round(scale * width), channels
        reduced = jax.image.resize(images, shape, "linear") if scale < 1 else images
        return (255 * reduced.clip(0, 1) + 0.5).astype(np.uint8)

    parts = []
    for start in range(0, len(rows), _BATCH):
        batch = np.minimum(np.arange(start, start + _BATCH), len(rows) - 1)
        parts.append(np.asarray(draw(*views.rows(rows[batch]))))
    return np.concatenate(parts)[: len(rows)]
