"""Tables of several reports side by side: an overview, and one or more for each compared metric."""

from collections.abc import Mapping, Sequence
from typing import Any

from contextssl_jax.evaluation.evaluators import all_metrics
from contextssl_jax.evaluation.evaluators.base import Comparison, Metric
from contextssl_jax.evaluation.evaluators.trees import display_name, values
from contextssl_jax.evaluation.parameter_probes import PROBES, TARGETS
from contextssl_jax.reports.page import Cell, Table

Reports = Mapping[str, Mapping[str, Any]]  # by the run's name


def comparison_tables(reports: Reports, probe: str, target: str) -> list[Table]:
    """Return what runs have in common: an overview after the longest context, and each metric.

    Args:
      reports: by the run's name.
      probe: the compared probe, of metrics by probe.
      target: the compared target of probes.
    """
    made = [_overview(reports, probe, target)]
    for metric in all_metrics():
        if metric.comparison is not None:
            made += _metric_tables(reports, metric, metric.comparison, probe, target)
    return [table for table in made if table.rows]


def describe_choice(probe: str, target: str) -> str:
    """Return what a compared R² is of."""
    return f"{PROBES[probe]} probe, {TARGETS[target]}"


def _metric_tables(
    reports: Reports, metric: Metric, comparison: Comparison, probe: str, target: str
) -> list[Table]:
    """Return one table, or one for each key of the level that the metric's comparison splits."""
    assert metric.table is not None
    names = [level.name for level in metric.levels[:-1]]
    selected = {"probe": probe, "target": target, **comparison.selected}
    selected = {name: key for name, key in selected.items() if name in names}
    row_levels = [name for name in names if name not in selected and name != comparison.split]
    # Cells by length; rows by their keys, then by run; tables by the key of the split level.
    split: dict[str, dict[tuple[str, ...], dict[str, dict[str, Cell]]]] = {}
    for run, report in reports.items():
        deviations = {tuple(keys.values()): x for keys, x in values(metric, report, "_std")}
        for keys, value in values(metric, report):
            if any(keys[name] != key for name, key in selected.items()):
                continue
            deviation = deviations.get(tuple(keys.values()))
            cell = value if deviation is None else f"{value:.3f} ± {deviation:.3f}"
            rows = split.setdefault(keys[comparison.split] if comparison.split else "", {})
            row = rows.setdefault(tuple(keys[name] for name in row_levels), {})
            row.setdefault(run, {})[keys["length"]] = cell
    lengths = sorted({c for report in reports.values() for c in report["provenance"]["lengths"]})
    chosen = [display_name(metric, name, key) for name, key in selected.items()]
    if "probe" in selected:
        chosen = [describe_choice(probe, target)]
    tables = []
    for part, rows in split.items():
        title = metric.table.title + (f": {part}" if part else "")
        lines: list[list[Cell]] = [
            [
                *(display_name(metric, n, key) for n, key in zip(row_levels, row, strict=True)),
                *(run, *(by_length.get(str(c)) for c in lengths)),
            ]
            for row, by_run in rows.items()
            for run, by_length in by_run.items()
        ]
        tables.append(
            Table(
                f"{title}, {', '.join(chosen)}" if chosen else title,
                (*row_levels, "run", *map(str, lengths)),
                lines,
                f"{metric.table.note} Values: {metric.unit}.",
            )
        )
    return tables


def _overview(reports: Reports, probe: str, target: str) -> Table:
    groups = dict.fromkeys(g for report in reports.values() for g in report["r2_features"])
    rows: list[list[Cell]] = []
    for run, report in reports.items():
        longest = str(report["provenance"]["lengths"][-1])
        row: list[Cell] = [run, report["provenance"]["step"], int(longest)]
        for group in groups:
            row.append(_cell(report, ("r2", group, group, probe, target, longest)))
            row.append(_cell(report, ("adaptivity", group, probe, target, longest)))
        for classifier in ("linear", "knn"):
            row.append(_cell(report, ("accuracy_features", classifier, "1.0")))
        rows.append(row)
    return Table(
        f"After the longest context, {describe_choice(probe, target)}",
        (
            *("run", "step", "tokens"),
            *(name for group in groups for name in (f"{group}, own R²", f"{group}, adaptivity")),
            *("linear accuracy", "kNN accuracy"),
        ),
        rows,
        "Own R²: R² of a group after contexts that show this group alone. Adaptivity: own R² minus"
        " R² after contexts that show the other groups. Accuracy: of classes, from the encoder's"
        " features.",
    )


def _cell(report: Mapping[str, Any], path: Sequence[str]) -> Cell:
    """Return report[path[0]][path[1]]..., with its deviation; None where the report lacks it."""

    def value(name: str) -> Any:
        tree: Any = report.get(name, {})
        for key in path[1:]:
            tree = tree.get(key, {})
        return None if isinstance(tree, dict) else tree

    mean, deviation = value(path[0]), value(f"{path[0]}_std")
    return mean if deviation is None else f"{mean:.3f} ± {deviation:.3f}"
