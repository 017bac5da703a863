"""Figures of several seeds as one: their mean, and the standard deviation over seeds."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from contextssl_jax.evaluation.stored import report_uses_context
from contextssl_jax.reports.page import Cell

Report = Mapping[str, Any]
# The parts of a report that are pooled; what follows their names leads to numbers.
TREES = (
    *("r2", "r2_features", "adaptivity", "r2_global", "r2_features_global", "adaptivity_global"),
    *("accuracy_features", "accuracy_told", "retrieval", "erasure"),
)


@dataclass(frozen=True)
class Pooled:
    """One figure by seed; each seed's may itself be a mean over drawn contexts."""

    by_seed: Mapping[int, float]

    @property
    def mean(self) -> float:
        """The mean over seeds, of which there is at least one."""
        return float(np.mean(list(self.by_seed.values())))

    @property
    def std(self) -> float | None:
        """The standard deviation over seeds (n - 1); None of a single seed."""
        values = list(self.by_seed.values())
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    def cell(self, factor: float = 1.0, digits: int = 3) -> Cell:
        """Returns what a table shows: "mean ± std", the figure of a single seed, or nothing."""
        if not self.by_seed:
            return None
        mean, std = f"{factor * self.mean:z.{digits}f}", self.std
        return mean if std is None else f"{mean} ± {factor * std:.{digits}f}"


@dataclass(frozen=True)
class Result:
    """The reports of one point.

    Attributes:
      label: of the point.
      value: its place on the sweep's axis.
      environments: that its config trains.
      reports: by seed; at least one.
    """

    label: str
    value: float | None
    environments: tuple[str, ...]
    reports: Mapping[int, Report]

    @property
    def uses_context(self) -> bool:
        """Whether the method reads contexts."""
        return any(report_uses_context(report["provenance"]) for report in self.reports.values())

    @property
    def adapts(self) -> bool:
        """Whether it reads contexts of several environments, so that it can differ by them."""
        return self.uses_context and len(self.environments) > 1

    @property
    def contexts(self) -> dict[str, str | None]:
        """The environments to show, by name, and what to call them: nothing without contexts.

        What can adapt is shown under all that were measured, also those that it was not trained in.
        """
        if self.uses_context:
            shown: dict[str, str | None] = {name: name for name in self.environments}
            if self.adapts:
                for report in self.reports.values():
                    shown |= {e: f"{e}, not trained" for e in report["r2"] if e not in shown}
            return shown
        first = next(iter(self.reports.values()))
        return {name: None for name in list(first["r2"])[:1]}

    def environments_of(self, name: str) -> dict[str, str | None]:
        """As contexts, of a figure that tells environments apart even without contexts.

        Args:
          name: of the report's tree, such as "retrieval", whose queries know the action shown, or
            "accuracy_told", whose labels may depend on it.
        """
        told = {key for report in self.reports.values() for key in report.get(name, {})}
        own: dict[str, str | None] = {key: key for key in self.environments if key in told}
        return self.contexts if self.uses_context else own or self.contexts

    def pool(self, figure: Callable[[Report], float | None]) -> Pooled:
        """Pools what a function finds in each report; None is left out."""
        found = {seed: figure(report) for seed, report in self.reports.items()}
        return Pooled({seed: value for seed, value in found.items() if value is not None})

    def at(self, *path: str) -> Pooled:
        """Pools the figures at report[path[0]][path[1]]..., of reports that have it."""

        def figure(report: Report) -> float | None:
            tree: Any = report
            for key in path:
                tree = tree.get(key, {})
            return None if isinstance(tree, dict) else tree

        return self.pool(figure)

    def lengths(self) -> set[int]:
        """Returns the lengths of contexts that any report has."""
        return {n for report in self.reports.values() for n in report["provenance"]["lengths"]}

    def figures(self) -> dict[str, Any]:
        """Returns TREES with {"mean", "std", "seeds"} in place of each number, for JSON."""
        tree: dict[str, Any] = {}
        paths = dict.fromkeys(path for report in self.reports.values() for path in _leaves(report))
        for path in paths:
            branch, pooled = tree, self.at(*path)
            for key in path[:-1]:
                branch = branch.setdefault(key, {})
            seeds = {str(seed): value for seed, value in pooled.by_seed.items()}
            branch[path[-1]] = {"mean": pooled.mean, "std": pooled.std, "seeds": seeds}
        return tree


def _leaves(report: Report) -> Iterator[tuple[str, ...]]:
    def walk(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if not isinstance(tree, dict):
            yield path
            return
        for key, branch in tree.items():
            yield from walk(branch, (*path, key))

    for name in TREES:
        yield from walk(report.get(name, {}), (name,))
