"""R² of told latents by group, in both of its definitions, and what a constant would score."""

from typing import NamedTuple

import numpy as np


class Target(NamedTuple):
    """What probes are to tell: latents of single views, or actions of pairs of them."""

    names: tuple[str, ...]  # of the entries
    owner: np.ndarray  # which group owns each entry, int [T]
    mean: np.ndarray  # of the entries in their own units, [T]
    std: np.ndarray  # likewise
    fit: np.ndarray  # standardised, to fit on, [n, T]
    test: np.ndarray  # standardised, to score on, [m, T]

    def constant(self) -> np.ndarray:
        """The best constant's prediction: the mean of what probes are fitted on, [1, m, T]."""
        return np.broadcast_to(self.fit.mean(axis=0), (1, *self.test.shape))


def r2_per_entry(target: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Coefficient of determination of each entry; the target's own mean scores 0.

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
    """The official code's R²: one mean over samples and entries, so a constant may score above 0.

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
    """Scores standardised predictions [..., m, T].

    Returns:
      entries: R² of each entry, [..., T].
      mean: the mean of a group's entries, [..., G].
      global: the official R² of a group, in the latents' own units, [..., G].
    """
    entries = r2_per_entry(target.test, predicted)
    own = [np.flatnonzero(target.owner == group) for group in range(groups)]
    true, told = (x * target.std + target.mean for x in (target.test, predicted))
    return {
        "entries": entries,
        "mean": np.stack([entries[..., e].mean(axis=-1) for e in own], axis=-1),
        "global": np.stack([r2_global(true[:, e], told[..., e]) for e in own], axis=-1),
    }
