"""A report's values beside the paper's for the same groups."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from contextssl_jax.evaluation.evaluators.retrieval import NAMES, chance
from contextssl_jax.evaluation.parameter_probes import PROBES
from contextssl_jax.evaluation.stored import report_uses_context
from contextssl_jax.reports.page import Cell, Table
from contextssl_jax.reports.paper import (
    LENGTHS,
    PAPER_RETRIEVALS,
    PAPER_TABLES,
    RETRIEVAL_KEYS,
    PaperTable,
)

Report = Mapping[str, Any]

_PREDICTABLE = 0.5  # R² that true parameters must give for a linear probe to be a comparison
_COMPARE = "Compare patterns, not values: see “How values are measured”."


def beside_r2(report: Report) -> Table | None:
    """Return the paper's R² and the report's, if the paper has a table of the report's groups.

    Where the paper's probes are known, values are of the same probes, and a group is left out whose
    action no probe of that kind can predict; else they are of every probe.

    Args:
      report: a report.json.
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
    left_out = _beyond_probes(report, table)
    if table.probes:
        probes = {group: probe for group, probe in table.probes.items() if group not in left_out}
        names = ", ".join(f"{group} {PROBES[probes[group]]}" for group in groups if group in probes)
        choices = {f"the paper's probes ({names})": probes}
    else:
        choices = {name: dict.fromkeys(groups, probe) for probe, name in PROBES.items()}
    rows: dict[str, str | None] = {
        f"{name} context": name for name in groups if name in report["r2_global"]
    }
    if not report_uses_context(report["provenance"]):
        rows = {report["provenance"]["method"]: None}
    ours = [
        [
            f"this run: {row}; {name}",
            *_r2(report, environment, probes),
            None if accuracy is None else 100 * accuracy,
        ]
        for row, environment in rows.items()
        for name, probes in choices.items()
    ]
    omissions = "".join(
        f" Left out: {group}, whose action no linear probe predicts." for group in left_out
    )
    return Table(
        f"Beside the paper's {table.name.split(' (')[0]}",
        ("", *(f"{group} {c}" for group in groups for c in LENGTHS), "top-1 %"),
        [*quoted, *ours],
        f"{table.name}. R² of actions by tokens of context, and linear accuracy of features."
        f"{omissions} {_COMPARE}",
        frozenset(range(len(quoted))),
    )


def beside_retrieval(report: Report) -> Table | None:
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
        f"{table.name}. Scores by tokens of context; only with equal numbers of candidates, that is"
        f" with equal chance, can they be compared. {_COMPARE}",
        frozenset(range(len(quoted))),
    )


def describe_differences(report: Report) -> dict[str, str]:
    """Return why values differ from those of the paper's tables, by the name of a table."""
    groups = frozenset(report["provenance"]["groups"])
    details = {}
    if groups in PAPER_TABLES:
        table = PAPER_TABLES[groups]
        details["paper"] = table.difference + "".join(
            f" A linear map from the true parameters of both views has an R² of {limit:z.2f} for"
            f" {group}: its action is not linear in them, and in the paper it was predicted by a"
            " linear probe."
            for group, limit in _beyond_probes(report, table).items()
        )
    if groups in PAPER_RETRIEVALS:
        details["paper_retrieval"] = PAPER_RETRIEVALS[groups].difference
    return details


def _r2(report: Report, environment: str | None, probes: Mapping[str, str]) -> Iterator[Cell]:
    """Yield a row's cells by length; without an environment, as in the paper, of features.

    A group without a probe has empty cells.
    """
    for group in report["provenance"]["groups"]:
        if group not in probes:
            yield from (None for _ in LENGTHS)
        elif environment is None:
            yield from _cells(iter([(report["r2_features_global"][group][probes[group]]["pair"],)]))
        else:
            here = report["r2_global"][environment][group][probes[group]]["pair"]
            yield from (here.get(length) for length in LENGTHS)


def _beyond_probes(report: Report, table: PaperTable) -> dict[str, float]:
    """Return the groups whose action is beyond the paper's linear probe, and its best R².

    The best is that of a linear map from the true parameters of both views; older reports lack it.
    """
    limits = {
        group: float(by["pair"]["global"])
        for group, by in report.get("r2_ceiling", {}).items()
        if table.probes.get(group) == "linear"
    }
    return {group: limit for group, limit in limits.items() if limit < _PREDICTABLE}


def _comparable(report: Report) -> bool:
    return any(int(length) in report["provenance"]["lengths"] for length in LENGTHS)


def _cells(values: Iterator[Sequence[float]]) -> Iterator[Cell]:
    """Yield a cell for each of LENGTHS; a method without context has only the first."""
    for by_length in values:
        yield from (*by_length, *(None,) * (len(LENGTHS) - len(by_length)))
