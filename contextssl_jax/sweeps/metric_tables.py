"""The tables of one metric over all variants and seeds, as its evaluator declares it."""

from collections.abc import Mapping, Sequence

from contextssl_jax.evaluation.evaluators.base import Comparison, Metric
from contextssl_jax.evaluation.evaluators.trees import display_name, values
from contextssl_jax.evaluation.parameter_probes import PROBES
from contextssl_jax.reports.page import Cell, Table
from contextssl_jax.sweeps.cells import SEEDS, by_length
from contextssl_jax.sweeps.pooled import Result
from contextssl_jax.sweeps.selection import R2Selection, lengths_of

_CONTEXT = "context"


def metric_tables(
    results: Sequence[Result], selection: R2Selection, metric: Metric, comparison: Comparison
) -> list[Table]:
    """Return one table, or one for each key of the level that the comparison splits.

    Args:
      results: variants with reports, in their order.
      selection: decides the probe and target of metrics that have these levels.
      metric: compared, by length.
      comparison: of the metric.
    """
    assert metric.table is not None
    names = [level.name for level in metric.levels[:-1]]
    free = [name for name in names if name not in (_CONTEXT, "probe", "target")]
    free = [name for name in free if name not in comparison.selected and name != comparison.split]
    lengths = lengths_of(results)
    split: dict[str, list[list[Cell]]] = {}
    for result in results:
        for keys, label in _rows(result, selection, metric, comparison):
            part = keys[comparison.split] if comparison.split else ""
            split.setdefault(part, []).append(
                [
                    *(result.label, *([label] if _CONTEXT in names else [])),
                    len(result.reports),
                    *(display_name(metric, name, keys[name]) for name in free),
                    *by_length(result, (metric.key, *(keys[name] for name in names)), lengths),
                ]
            )
    context = [_CONTEXT] if _CONTEXT in names else []
    probes = _describe_probes(names, split, selection, comparison)
    return [
        Table(
            f"{metric.table.title}: {part}" if part else metric.table.title,
            ("method", *context, "seeds", *free, *lengths),
            rows,
            f"{metric.table.note} Values: {metric.unit}.{probes} {SEEDS}",
        )
        for part, rows in split.items()
    ]


def _rows(
    result: Result, selection: R2Selection, metric: Metric, comparison: Comparison
) -> list[tuple[Mapping[str, str], str | None]]:
    """Return the keys of each displayed row without its length, with the context's label."""
    contexts = result.environments_of(metric.key) if comparison.by_environment else result.contexts
    found: dict[tuple[str, ...], Mapping[str, str]] = {}
    for report in result.reports.values():
        for keys, _ in values(metric, report):
            group = keys.get("group")
            chosen = dict(comparison.selected)
            if "probe" in keys and "probe" not in chosen:
                chosen["probe"] = selection.probe(group) if group else "linear"
            if "target" in keys and "target" not in chosen:
                chosen["target"] = selection.target
            if all(keys[name] == key for name, key in chosen.items()):
                row = {name: key for name, key in keys.items() if name != "length"}
                found.setdefault(tuple(row.values()), row)
    if not any(level.name == _CONTEXT for level in metric.levels):
        return [(row, None) for row in found.values()]
    return [
        (row, label)
        for name, label in contexts.items()
        for row in found.values()
        if row[_CONTEXT] == name
    ]


def _describe_probes(
    names: Sequence[str],
    split: Mapping[str, object],
    selection: R2Selection,
    comparison: Comparison,
) -> str:
    if "probe" not in names or "group" not in names or comparison.split != "group":
        return ""
    return "".join(f" {group}: {PROBES[selection.probe(group)]} probe." for group in split)
