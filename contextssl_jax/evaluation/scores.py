"""R² of predicted parameters by group, in two definitions, and that of a constant prediction."""

from typing import NamedTuple

import numpy as np

from contextssl_jax.evaluation.views import Views
from contextssl_jax.transforms import ParameterSpace


class Target(NamedTuple):
    """Targets of probes: parameters of single views, or actions between two views."""

    names: tuple[str, ...]  # of the entries
    group_ids: np.ndarray  # group of each entry, int [T]
    mean: np.ndarray  # of the entries in their own units, [T]
    std: np.ndarray  # in the same units, [T]
    fit: np.ndarray  # standardized, to fit on, [n, T]
    test: np.ndarray  # standardized, to score on, [m, T]

    def constant(self) -> np.ndarray:
        """Return the best constant prediction, the mean of `fit`, [1, m, T]."""
        return np.broadcast_to(self.fit.mean(axis=0), (1, *self.test.shape))


def probe_targets(space: ParameterSpace, fit: Views, test: Views) -> dict[str, Target]:
    """Return the targets of probes from two views of each record, by name."""
    flat = [
        views.transform_params.reshape(-1, views.transform_params.shape[-1])
        for views in (fit, test)
    ]
    single = (space.standardize(t) for t in flat)
    pair = (space.actions(v.transform_params[:, 0], v.transform_params[:, 1]) for v in (fit, test))
    entries = [f"{group.name} {entry}" for group in space.groups for entry in group.parameter_names]
    actions = [f"{group.name} {entry}" for group in space.groups for entry in group.action_names]
    return {
        "single": Target(
            tuple(entries), space.param_group_ids, space.param_mean, space.param_std, *single
        ),
        "pair": Target(
            tuple(actions), space.action_group_ids, space.action_mean, space.action_std, *pair
        ),
    }


def r2_per_entry(target: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the coefficient of determination of each entry; the target's own mean scores 0.

    Args:
      target: [m, T].
      predicted: [..., m, T].

    Returns:
      [..., T].
    """
    target = np.asarray(target, np.float64)
    residual = np.sum((target - predicted) ** 2, axis=-2)
    return 1 - residual / np.sum((target - target.mean(axis=0)) ** 2, axis=0)


def r2_global(target: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the official code's R², of one mean over samples and entries.

    A constant prediction may score above 0.

    Args:
      target: [m, T].
      predicted: [..., m, T].

    Returns:
      [...].
    """
    target = np.asarray(target, np.float64)
    residual = np.sum((target - predicted) ** 2, axis=(-2, -1))
    return 1 - residual / np.sum((target - target.mean()) ** 2)


def score(target: Target, predicted: np.ndarray, groups: int) -> dict[str, np.ndarray]:
    """Score standardized predictions [..., m, T].

    Returns:
      entries: R² of each entry, [..., T].
      mean: the mean of a group's entries, [..., G].
      global: the official R² of a group, in the parameters' own units, [..., G].
    """
    entries = r2_per_entry(target.test, predicted)
    own = [np.flatnonzero(target.group_ids == group) for group in range(groups)]
    true, raw = (x * target.std + target.mean for x in (target.test, predicted))
    return {
        "entries": entries,
        "mean": np.stack([entries[..., e].mean(axis=-1) for e in own], axis=-1),
        "global": np.stack([r2_global(true[:, e], raw[..., e]) for e in own], axis=-1),
    }
