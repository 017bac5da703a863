"""Which views come nearest to (x, a) under each context: what the paper's Figures 1 and 6 show."""

from typing import NamedTuple

import jax
import numpy as np

from contextssl_jax.data.dataset import Dataset
from contextssl_jax.evaluation.contexts import Conditions
from contextssl_jax.evaluation.retrieval import nearest
from contextssl_jax.evaluation.views import Views

_RECORDS, _SHOWN = 4, 3
_SOURCE, _TARGET = 0, 1  # views of a record


class Neighbours(NamedTuple):
    """M records, each with a source, a target, and the nearest views under E x C conditions."""

    environments: tuple[str, ...]
    lengths: tuple[int, ...]
    groups: tuple[str, ...]
    sources: np.ndarray  # images in [0, 1], [M, H, W, 3]
    targets: np.ndarray  # likewise
    near: np.ndarray  # likewise, nearest first, [M, E, C, 3, H, W, 3]
    distances: np.ndarray  # of their latents from the target's, [M, E, C, 3, G]


def find_neighbours(
    dataset: Dataset, views: Views, bank: np.ndarray, queries: np.ndarray, conditions: Conditions
) -> Neighbours:
    """Finds the views nearest to z_r of (view 0, the action to view 1), the source left out.

    Distances are root-mean-square over a group's latent entries, in standard deviations.

    Args:
      dataset: renders the views.
      views: V of each record.
      bank: z⁺ of the views, [U, n, V, P].
      queries: z_r of view 0 and the action to each view, [E, C, n, V, P].
      conditions: the U and the E, C. Environments that show one group are kept, and the shortest,
        middle and longest length.
    """
    m = min(_RECORDS, len(views.indices))
    records = views.part(slice(m))
    v = views.transform_params.shape[1]
    drawn = jax.jit(dataset.render)(*records.rows(np.arange(m * v)))
    images = np.asarray(dataset.pixels(drawn)).reshape(m, v, *drawn.shape[1:])
    alone = [name for name, shown in conditions.environments.items() if shown.sum() == 1]
    names = list(conditions.environments)
    environments = alone or names
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
                        _SHOWN,
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
    owner = np.eye(len(space.names))[space.param_group_ids]
    squared = (t - t[:, _TARGET : _TARGET + 1]) ** 2 @ (owner / owner.sum(axis=0))
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
