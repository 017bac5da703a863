"""The views nearest to the predicted target of (x, a) under each context (Figures 1 and 6)."""

from typing import NamedTuple

import jax
import numpy as np

from contextssl_jax.data.dataset import Dataset
from contextssl_jax.evaluation.contexts import Conditions
from contextssl_jax.evaluation.evaluators.retrieval import nearest
from contextssl_jax.evaluation.views import Views

_RECORDS, _NEAREST = 4, 3
_SOURCE, _TARGET = 0, 1  # views of a record


class Neighbours(NamedTuple):
    """Source, target and nearest views of M records, under E x C conditions."""

    environments: tuple[str, ...]
    lengths: tuple[int, ...]
    groups: tuple[str, ...]
    sources: np.ndarray  # images in [0, 1], [M, H, W, 3]
    targets: np.ndarray  # [M, H, W, 3]
    near: np.ndarray  # nearest first, [M, E, C, 3, H, W, 3]
    distances: np.ndarray  # of their parameters from the target's, [M, E, C, 3, G]


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
      conditions: the U conditions, of E environments and C lengths. The result has the
        environments of a single group, and the shortest, middle and longest length.
    """
    m = min(_RECORDS, len(views.indices))
    records = views.part(slice(m))
    v = views.transform_params.shape[1]
    drawn = np.asarray(jax.jit(dataset.render)(*records.rows(np.arange(m * v))))
    images = dataset.pixels(drawn).reshape(m, v, *drawn.shape[1:])
    single = [name for name, observed in conditions.environments.items() if observed.sum() == 1]
    names = list(conditions.environments)
    environments = single or names
    lengths = sorted({conditions.lengths[i] for i in (0, len(conditions.lengths) // 2, -1)})
    others = [view for view in range(v) if view != _SOURCE]
    found = np.array(
        [
            [
                [
                    nearest(
                        queries[names.index(e), conditions.lengths.index(c), i, _TARGET],
                        bank[conditions.row(e, c), i],
                        others,
                        _NEAREST,
                    )
                    for c in lengths
                ]
                for e in environments
            ]
            for i in range(m)
        ]
    )
    space = dataset.space
    t = np.asarray(space.standardize(records.transform_params))
    membership = np.eye(len(space.names))[space.param_group_ids]
    squared = (t - t[:, _TARGET : _TARGET + 1]) ** 2 @ (membership / membership.sum(axis=0))
    rows = np.arange(m)[:, None, None, None]
    return Neighbours(
        tuple(environments),
        tuple(lengths),
        space.names,
        images[:, _SOURCE],
        images[:, _TARGET],
        images[rows, found],
        np.sqrt(squared)[rows, found],
    )
