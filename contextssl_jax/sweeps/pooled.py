"""Values of several seeds pooled: their mean and standard deviation over seeds."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from contextssl_jax.evaluation.evaluators import all_metrics
from contextssl_jax.evaluation.evaluators.base import Metric
from contextssl_jax.evaluation.evaluators.trees import values
from contextssl_jax.evaluation.stored import report_uses_context
from contextssl_jax.reports.page import Cell

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Pooled:
    """One value by seed; each may itself be a mean over drawn contexts."""

    by_seed: Mapping[int, float]

    @property
    def mean(self) -> float:
        """Return the mean over seeds, of which there is at least one."""
        return float(np.mean(list(self.by_seed.values())))

    @property
    def std(self) -> float | None:
        """Return the standard deviation over seeds (n - 1); None for a single seed."""
        by_seed = list(self.by_seed.values())
        return float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else None

    def cell(self, factor: float = 1.0, digits: int = 3) -> Cell:
        """Return a table's cell: "mean ± std", the value of a single seed, or None without any."""
        if not self.by_seed:
            return None
        mean, std = f"{factor * self.mean:z.{digits}f}", self.std
        return mean if std is None else f"{mean} ± {factor * std:.{digits}f}"


@dataclass(frozen=True)
class Result:
    """The reports of one variant.

    Attributes:
      label: of the variant.
      value: of the sweep's axis.
      environments: of its training.
      reports: by seed; at least one.
    """

    label: str
    value: float | None
    environments: tuple[str, ...]
    reports: Mapping[int, Report]

    @property
    def uses_context(self) -> bool:
        """Return whether the method uses contexts."""
        return any(report_uses_context(report["provenance"]) for report in self.reports.values())

    @property
    def adapts(self) -> bool:
        """Return whether it is trained with contexts of several environments."""
        return self.uses_context and len(self.environments) > 1

    @property
    def contexts(self) -> dict[str, str | None]:
        """Return the displayed environments and their labels: None without contexts.

        A method that adapts is displayed in all evaluated environments, trained in or not.
        """
        if self.uses_context:
            labels: dict[str, str | None] = {name: name for name in self.environments}
            if self.adapts:
                for report in self.reports.values():
                    labels |= {e: f"{e}, not trained" for e in report["r2"] if e not in labels}
            return labels
        first = next(iter(self.reports.values()))
        return {name: None for name in list(first["r2"])[:1]}

    def environments_of(self, name: str) -> dict[str, str | None]:
        """Return `contexts` of a metric that differs between environments even without contexts.

        Args:
          name: the metric's key, such as "retrieval", whose queries have the observed action, or
            "accuracy_told", whose labels may depend on the environment.
        """
        known = {key for report in self.reports.values() for key in report.get(name, {})}
        own: dict[str, str | None] = {key: key for key in self.environments if key in known}
        return self.contexts if self.uses_context else own or self.contexts

    def pool(self, value_of: Callable[[Report], float | None]) -> Pooled:
        """Pool the values that a function returns of each report, except None."""
        found = {seed: value_of(report) for seed, report in self.reports.items()}
        return Pooled({seed: value for seed, value in found.items() if value is not None})

    def at(self, *path: str) -> Pooled:
        """Pool the values at report[path[0]][path[1]]..., of reports that have it."""

        def value_of(report: Report) -> float | None:
            tree: Any = report
            for key in path:
                tree = tree.get(key, {})
            return None if isinstance(tree, dict) else tree

        return self.pool(value_of)

    def lengths(self) -> set[int]:
        """Return the lengths of contexts that any report has."""
        return {n for report in self.reports.values() for n in report["provenance"]["lengths"]}

    def figures(self) -> dict[str, Any]:
        """Return all pooled metrics with {"mean", "std", "seeds"} for each number, for JSON."""
        tree: dict[str, Any] = {}
        for metric in all_metrics():
            if metric.pooled:
                for path in self._paths(metric):
                    branch, pooled = tree, self.at(*path)
                    for key in path[:-1]:
                        branch = branch.setdefault(key, {})
                    seeds = {str(seed): value for seed, value in pooled.by_seed.items()}
                    branch[path[-1]] = {"mean": pooled.mean, "std": pooled.std, "seeds": seeds}
        return tree

    def _paths(self, metric: Metric) -> Iterator[tuple[str, ...]]:
        """Yield the path of every value of a metric that any report has."""
        yield from dict.fromkeys(
            (metric.key, *keys.values())
            for report in self.reports.values()
            for keys, _ in values(metric, report)
        )
