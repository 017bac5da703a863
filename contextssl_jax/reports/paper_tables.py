"""A report's values beside the paper's for the same groups."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from contextssl_jax.evaluation.evaluators.retrieval import NAMES, chance
from contextssl_jax.evaluation.parameter_probes import PROBES
from contextssl_jax.evaluation.stored import report_uses_context
from contextssl_jax.reports.page import Cell, Table
from contextssl_jax.reports.paper import LENGTHS, PAPER_RETRIEVALS, PAPER_TABLES, RETRIEVAL_KEYS

Report = Mapping[str, Any]


def beside_r2(report: Report, details: str) -> Table | None:
    """Return the paper's R² and the report's, if the paper has a table of the report's groups.

    Args:
      report: a report.json.
      details: the views and probes of the report's values.
    """
    groups = report["provenance"]["groups"]
    table = PAPER_TABLES.get(frozenset(groups))
    if table is None or not _comparable(report):
        return None
    quoted: list[list[Cell]] = [
        [f"paper: {row.method}", *_cells(row.r2[group] for group in groups), row.accuracy]
        for row in table.rows
    ]
    accuracy = report.get("accuracy_features", {}).get("linear", {}).get("1.0")
    choices = {name: dict.fromkeys(groups, probe) for probe, name in PROBES.items()}
    if table.probes:
        names = ", ".join(f"{group} {PROBES[table.probes[group]]}" for group in groups)
        choices = {f"the paper's probes ({names})": dict(table.probes)} | choices
    rows: dict[str, str | None] = {
        f"{name} context": name for name in groups if name in report["r2_global"]
    }
    if not report_uses_context(report["provenance"]):
        rows = {report["provenance"]["method"]: None}
    ours = [
        [
            f"this run: {row}; {name}",
            *_r2(report, environment, probe),
            None if accuracy is None else 100 * accuracy,
        ]
        for row, environment in rows.items()
        for name, probe in choices.items()
    ]
    return Table(
        f"Beside the paper's {table.name.split(' (')[0]}",
        ("", *(f"{group} {c}" for group in groups for c in LENGTHS), "top-1 %"),
        [*quoted, *ours],
        f"{table.name}. Columns: R² of each group by tokens of context, and linear accuracy on the"
        " encoder's features. A method without context has one value, in the first column of a"
        " group. Rows of this run: R² of the action between two views, by the official code's"
        f" definition. {table.difference} {details}",
        frozenset(range(len(quoted))),
    )


def beside_retrieval(report: Report, details: str) -> Table | None:
    """Return the paper's retrieval scores and the report's; see beside_r2."""
    p = report["provenance"]
    table = PAPER_RETRIEVALS.get(frozenset(p["groups"]))
    if table is None or not _comparable(report) or table.environment not in report["retrieval"]:
        return None
    quoted: list[list[Cell]] = [
        [f"paper: {method}", *_cells(scores[key] for key in RETRIEVAL_KEYS)]
        for method, scores in table.rows
    ]
    here = report["retrieval"][table.environment]
    ours: list[list[Cell]] = [
        [
            f"this run: {table.environment} context",
            *(here[key].get(length) for key in RETRIEVAL_KEYS for length in LENGTHS),
        ]
    ]
    by_chance = p["retrieval_chance"]
    for whose, n in (("the paper's", table.candidates), ("this run's", 1 / by_chance["hit@1"])):
        scores = chance(round(n))
        ours.append(
            [f"chance among {whose} {n:.0f}", *_cells((scores[key],) for key in RETRIEVAL_KEYS)]
        )
    return Table(
        f"Beside the paper's {table.name.split(' (')[0]}",
        ("", *(f"{NAMES[key]} {c}" for key in RETRIEVAL_KEYS for c in LENGTHS)),
        [*quoted, *ours],
        f"{table.name}. Columns: each score by tokens of context; a method without context has one"
        f" value, in the first column of a score. {table.difference} {details}",
        frozenset(range(len(quoted))),
    )


def _r2(report: Report, environment: str | None, probe: Mapping[str, str]) -> Iterator[Cell]:
    """Yield a row's cells by length; without an environment, as in the paper, of features."""
    for group in report["provenance"]["groups"]:
        if environment is None:
            yield from _cells(iter([(report["r2_features_global"][group][probe[group]]["pair"],)]))
        else:
            here = report["r2_global"][environment][group][probe[group]]["pair"]
            yield from (here.get(length) for length in LENGTHS)


def _comparable(report: Report) -> bool:
    return any(int(length) in report["provenance"]["lengths"] for length in LENGTHS)


def _cells(values: Iterator[Sequence[float]]) -> Iterator[Cell]:
    """Yield a cell for each of LENGTHS; a method without context has only the first."""
    for by_length in values:
        yield from (*by_length, *(None,) * (len(LENGTHS) - len(by_length)))
