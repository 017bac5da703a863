"""Values of a metric's tree by the names of its levels, for tables of any kind."""

from collections.abc import Iterator, Mapping
from typing import Any

from contextssl_jax.evaluation.evaluators.base import Keys, Metric


def values(
    metric: Metric, report: Mapping[str, Any], suffix: str = ""
) -> Iterator[tuple[Keys, float]]:
    """Yield every value with its key of each level; nothing where the report lacks the metric.

    Args:
      metric: whose tree.
      report: a report.json.
      suffix: of the metric's key, such as "_std".
    """

    def walk(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[Keys, float]]:
        if len(path) == len(metric.levels):
            yield {level.name: k for level, k in zip(metric.levels, path, strict=True)}, tree
            return
        for key, branch in tree.items():
            yield from walk(branch, (*path, key))

    yield from walk(report.get(f"{metric.key}{suffix}", {}), ())


def display_name(metric: Metric, level: str, key: str) -> str:
    """Return what tables display for a key of a level."""
    (names,) = (one.names for one in metric.levels if one.name == level)
    return names.get(key, key)
