"""A report's figures beside those of the paper for the same groups."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from contextssl_jax.evaluation.retrieval import chance
from contextssl_jax.evaluation.stored import report_uses_context
from contextssl_jax.reports.page import Cell, Table
from contextssl_jax.reports.paper import LENGTHS, PAPER_RETRIEVALS, PAPER_TABLES

Report = Mapping[str, Any]
_MEASURES = {"mrr": "MRR", "hit@1": "H@1", "hit@5": "H@5"}  # those that the paper tells


def beside_r2(report: Report, probes: Mapping[str, str], caption: str) -> Table | None:
    """Returns the paper's table of R², where there is one of the report's groups, and ours.

    Args:
      report: see report.assemble.
      probes: what the report's probes are called.
      caption: what the report's figures are of.
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
    choices = {name: dict.fromkeys(groups, probe) for probe, name in probes.items()}
    if table.probes:
        told = ", ".join(f"{group} {probes[table.probes[group]]}" for group in groups)
        choices = {f"the paper's probes ({told})": dict(table.probes)} | choices
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
        f"{table.name}. Columns: R² of the group by tokens of context; linear accuracy on the"
        " encoder's features. A method without context has one figure, in the first column. This"
        f" run: R² of relative actions told from pairs, official definition. {table.difference}"
        f" {caption}",
        frozenset(range(len(quoted))),
    )


def beside_retrieval(report: Report, caption: str) -> Table | None:
    """Returns the paper's table of retrieval, where there is one, and ours; see beside_r2."""
    p = report["provenance"]
    table = PAPER_RETRIEVALS.get(frozenset(p["groups"]))
    if table is None or not _comparable(report) or table.environment not in report["retrieval"]:
        return None
    quoted: list[list[Cell]] = [
        [f"paper: {method}", *_cells(figures[measure] for measure in _MEASURES)]
        for method, figures in table.rows
    ]
    here = report["retrieval"][table.environment]
    ours: list[list[Cell]] = [
        [
            f"this run: {table.environment} context",
            *(here[measure].get(length) for measure in _MEASURES for length in LENGTHS),
        ]
    ]
    by_chance = p["retrieval_chance"]
    for whose, n in (("the paper's", table.candidates), ("this run's", 1 / by_chance["hit@1"])):
        scores = chance(round(n))
        ours.append(
            [f"chance among {whose} {n:.0f}", *_cells((scores[measure],) for measure in _MEASURES)]
        )
    return Table(
        f"Beside the paper's {table.name.split(' (')[0]}",
        ("", *(f"{name} {c}" for name in _MEASURES.values() for c in LENGTHS)),
        [*quoted, *ours],
        f"{table.name}. Columns: the measure by tokens of context; a method without context has one"
        f" figure, in the first column. {table.difference} {caption}",
        frozenset(range(len(quoted))),
    )


def _r2(report: Report, environment: str | None, probe: Mapping[str, str]) -> Iterator[Cell]:
    """Yields a row's cells: by length, or without an environment, as the paper, of features."""
    for group in report["provenance"]["groups"]:
        if environment is None:
            yield from _cells(iter([(report["r2_features_global"][group][probe[group]]["pair"],)]))
        else:
            here = report["r2_global"][environment][group][probe[group]]["pair"]
            yield from (here.get(length) for length in LENGTHS)


def _comparable(report: Report) -> bool:
    return any(int(length) in report["provenance"]["lengths"] for length in LENGTHS)


def _cells(figures: Iterator[Sequence[float]]) -> Iterator[Cell]:
    """Yields a cell for each of LENGTHS, of which a method without context has the first alone."""
    for some in figures:
        yield from (*some, *(None,) * (len(LENGTHS) - len(some)))
