"""A report's values as tables: one for each metric, the paper's, and how they are measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from contextssl_jax.evaluation.evaluators import all_metrics
from contextssl_jax.evaluation.evaluators.base import Keys, Metric, TableLayout
from contextssl_jax.evaluation.evaluators.trees import display_name, values
from contextssl_jax.evaluation.stored import report_uses_context
from contextssl_jax.reports.glossary import glossary
from contextssl_jax.reports.page import Cell, Table
from contextssl_jax.reports.paper_tables import beside_r2, beside_retrieval, describe_differences

Report = Mapping[str, Any]


def tables(report: Report) -> dict[str, Table]:
    """Return the report's tables by name, in the order of a page; those of metrics by their key."""
    made: dict[str, Table | None] = {"paper": beside_r2(report)}
    for metric in all_metrics():
        if metric.table is not None:
            made[metric.key] = metric_table(report, metric, metric.table)
    made["paper_retrieval"] = beside_retrieval(report)
    present = {name: table for name, table in made.items() if table is not None and table.rows}
    last = {"methods": _methods(report, present), "seconds": _seconds(report)}
    return present | last | {"glossary": glossary()}


def metric_table(report: Report, metric: Metric, layout: TableLayout) -> Table:
    """Return the table of one metric, by its layout; without rows where the report lacks it.

    With several drawn contexts, cells are "mean ± standard deviation", except of extra columns.
    """
    names = [level.name for level in metric.levels]
    column_level = layout.columns or names[-1]
    row_levels = layout.rows or tuple(name for name in names if name != column_level)
    longest = str(report["provenance"]["lengths"][-1])
    at_longest = "length" in names and "length" not in (column_level, *row_levels)
    deviations = {tuple(keys.values()): x for keys, x in values(metric, report, "_std")}
    cells: dict[tuple[str, ...], dict[str, Cell]] = {}
    row_keys: dict[tuple[str, ...], Keys] = {}
    for keys, value in values(metric, report):
        if at_longest and keys["length"] != longest:
            continue
        row = tuple(keys[name] for name in row_levels)
        row_keys.setdefault(row, keys)
        deviation = deviations.get(tuple(keys.values()))
        cells.setdefault(row, {})[keys[column_level]] = (
            value if deviation is None else f"{value:.3f} ± {deviation:.3f}"
        )
    columns = list(dict.fromkeys(column for by_column in cells.values() for column in by_column))
    rows: list[list[Cell]] = [
        [
            *(display_name(metric, name, key) for name, key in zip(row_levels, row, strict=True)),
            *(cells[row].get(column) for column in columns),
            *(extra(report, row_keys[row]) for extra in layout.extra.values()),
        ]
        for row in _sorted_by_levels(list(cells))
    ]
    headings = [display_name(metric, column_level, column) for column in columns]
    title = f"{layout.title} ({longest} tokens)" if at_longest else layout.title
    return Table(
        title,
        (*row_levels, *headings, *layout.extra),
        rows,
        f"{layout.note} Values: {metric.unit}.",
    )


def _methods(report: Report, present: Mapping[str, Table]) -> Table:
    """Return the views and settings of the present tables, once for all that share them."""
    details = {
        metric.key: metric.table.details(report)
        for metric in all_metrics()
        if metric.table is not None
    } | describe_differences(report)
    titles: dict[str, list[str]] = {}
    for key, table in present.items():
        titles.setdefault(details[key], []).append(table.title)
    rows: list[list[Cell]] = [["; ".join(of), text] for text, of in titles.items()]
    return Table("How values are measured", ("tables", "views and settings"), rows)


def describe_source(report: Report) -> str:
    """Return a sentence on the model, contexts and run of a report."""
    p = report["provenance"]
    contexts = "no context"
    if report_uses_context(p):
        number = f"{p['draws']} contexts" if p["draws"] > 1 else "one context"
        if p["draws_of"] == "orders":
            number = f"{p['draws']} orders of one context"
        contexts = f"{number} of the {p['context_split']} split"
        contexts += ", masked as in training" if p["sparse"] else ""
        contexts += " (mean ± standard deviation across them)" if p["draws"] > 1 else ""
        if p["context_mask"] == "set":
            contexts += "; pairs of a context attend to themselves alone"
    if p["rounding"]:
        contexts += f"; embeddings rounded to multiples of {p['rounding']:g}"
    return (
        f"All values are of {p['method']} on {p['data']}, config {p['config']}, seed {p['seed']},"
        f" step {p['step']}; {contexts}, evaluation seed {p['evaluation_seed']}. The report took"
        f" {sum(p['seconds'].values()):.0f} s on {p['device']}."
    )


def _sorted_by_levels(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Sort rows by their levels, the keys of each in the order of their first appearance."""
    order = [
        {key: i for i, key in enumerate(dict.fromkeys(column))}
        for column in zip(*rows, strict=True)
    ]
    return sorted(rows, key=lambda row: [by[key] for by, key in zip(order, row, strict=True)])


def _seconds(report: Report) -> Table:
    seconds = report["provenance"]["seconds"]
    encoding = seconds["encoding"]
    rows: list[list[Cell]] = [[n, s, s / encoding] for n, s in seconds.items()]
    total = sum(seconds.values())
    return Table(
        "Time",
        ("part", "seconds", "relative to encoding"),
        [*rows, ["all", total, total / encoding]],
        "Seconds of each part of the evaluation, compilation included. Each view is encoded once.",
    )
