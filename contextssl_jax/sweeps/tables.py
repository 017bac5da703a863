"""The tables of a sweep's page over seeds: those with the paper's rows, and other metrics'."""

from collections.abc import Sequence

from contextssl_jax.evaluation.evaluators import all_metrics, metric_by_key
from contextssl_jax.evaluation.evaluators.retrieval import NAMES
from contextssl_jax.evaluation.parameter_probes import PROBES, TARGETS
from contextssl_jax.reports.page import Cell, Table
from contextssl_jax.reports.paper import (
    PAPER_RETRIEVALS,
    PAPER_TABLES,
    RETRIEVAL_KEYS,
    PaperRetrieval,
    PaperTable,
)
from contextssl_jax.sweeps.cells import SEEDS, by_length, paper_by_length, quoted_row, split_name
from contextssl_jax.sweeps.layout import overview
from contextssl_jax.sweeps.metric_tables import metric_tables
from contextssl_jax.sweeps.pooled import Result
from contextssl_jax.sweeps.selection import R2Selection, groups_of, lengths_of

# Metrics with a table of their own below, since the paper's values are beside them.
_OWN_TABLE = ("r2", "adaptivity", "retrieval", "accuracy_told")


def tables(results: Sequence[Result], selection: R2Selection) -> list[Table]:
    """Return the tables that have rows.

    Args:
      results: variants with reports, in their order.
      selection: the displayed R².
    """
    groups = groups_of(results)
    made = [
        overview(results, selection),
        *(_r2(results, selection, group) for group in groups),
        _adaptivity(results, selection, groups),
        _classes(results, selection),
        _retrieval(results, selection),
    ]
    for metric in all_metrics():
        if metric.comparison is not None and metric.key not in _OWN_TABLE:
            made += metric_tables(results, selection, metric, metric.comparison)
    return [table for table in made if table.rows]


def _r2(results: Sequence[Result], selection: R2Selection, group: str) -> Table:
    paper = selection.paper
    lengths = lengths_of(results, paper)
    quoted: list[list[Cell]] = [
        quoted_row(row, _paper_r2(row.r2[group], lengths))
        for row in (paper.rows if paper else ())
        if group in row.r2
    ]
    rows: list[list[Cell]] = [
        [
            *(result.label, label, len(result.reports)),
            result.at(*selection.features_path(group)).cell(),
            *by_length(result, selection.path(name, group), lengths),
        ]
        for result in results
        for name, label in result.contexts.items()
    ]
    difference = f" {paper.name}. {paper.difference}" if paper and quoted else ""
    return Table(
        f"R² of {group}",
        ("method", "context", "seeds", "encoder", *lengths),
        [*quoted, *rows],
        f"How well a probe predicts the group. {selection.describe(group)} 'encoder': from the"
        " encoder's features, which the paper reports of methods without contexts. Other columns:"
        " from embeddings by tokens of context, which it reports of ContextSSL; a method without"
        f" contexts has 0 tokens. {SEEDS}{difference}",
        frozenset(range(len(quoted))),
    )


def _adaptivity(results: Sequence[Result], selection: R2Selection, groups: Sequence[str]) -> Table:
    lengths = lengths_of(results)
    rows: list[list[Cell]] = [
        [
            *(group, result.label, len(result.reports)),
            *by_length(result, selection.adaptivity_path(group), lengths),
        ]
        for group in groups
        for result in results
        if result.adapts
    ]
    probes = ", ".join(f"{group}: {PROBES[selection.probe(group)]} probe" for group in groups)
    declared = metric_by_key()["adaptivity"].table
    assert declared is not None
    return Table(
        declared.title,
        ("group", "method", "seeds", *lengths),
        rows,
        f"{declared.note} {TARGETS[selection.target].capitalize()}; {probes}. Only methods with"
        f" contexts of several environments have values. {SEEDS}",
    )


def _classes(results: Sequence[Result], selection: R2Selection) -> Table:
    predicting = [r for r in results if any("accuracy_told" in x for x in r.reports.values())]
    paper = selection.paper.rows if selection.paper else ()
    by_model = bool(predicting) or any(row.predicted for row in paper)
    lengths = lengths_of(results, selection.paper) if by_model else []
    quoted: list[list[Cell]] = []
    for row in paper:
        top1 = None if row.accuracy is None else f"{row.accuracy:.1f}"
        line = quoted_row(row, [top1, None, *paper_by_length(row.predicted, lengths, "{:.1f}")])
        if not by_model:
            del line[1]
        if line not in quoted:  # the encoder's accuracy is the same under every context
            quoted.append(line)
    rows: list[list[Cell]] = []
    for result in results:
        features = [
            result.at("accuracy_features", probe, "1.0").cell(100, 1) for probe in ("linear", "knn")
        ]
        if not by_model:
            if any(cell is not None for cell in features):
                rows.append([result.label, len(result.reports), *features])
            continue
        for name, label in result.environments_of("accuracy_told").items():
            cells = by_length(result, ("accuracy_told", name), lengths, 100, 1)
            rows.append([result.label, label, len(result.reports), *features, *cells])
    columns = ("method", *(("context",) if by_model else ()), "seeds", "linear", "kNN")
    predictions = (
        " By tokens of context: predicted by the model itself on transformed views; correct is the"
        " label that holds in the context's environment."
        if by_model
        else ""
    )
    return Table(
        "Classes, top-1 %",
        (*columns, *lengths),
        [*quoted, *rows] if rows else [],
        "Linear, kNN: from the encoder's features of untransformed images (of transformed views"
        f" where the data set has no untransformed ones), with all labels.{predictions} {SEEDS}",
        frozenset(range(len(quoted))),
    )


def _retrieval(results: Sequence[Result], selection: R2Selection) -> Table:
    lengths = lengths_of(results, selection.paper)
    paper = _paper_retrieval(selection.paper)
    rows: list[list[Cell]] = []
    quoted: set[int] = set()
    for key in RETRIEVAL_KEYS:
        title = NAMES[key]
        for method, scores in paper.rows if paper else ():
            quoted.add(len(rows))
            name, context = split_name(method)
            cells = paper_by_length(scores[key], lengths, "{:.3f}")
            rows.append([title, f"paper: {name}", context, None, *cells, None])
        for result in results:
            for name, label in result.environments_of("retrieval").items():
                cells = by_length(result, ("retrieval", name, key), lengths)
                by_chance = result.at("provenance", "retrieval_chance", key).cell()
                rows.append([title, result.label, label, len(result.reports), *cells, by_chance])
    difference = f" {paper.name}. {paper.difference}" if paper else ""
    declared = metric_by_key()["retrieval"].table
    assert declared is not None
    return Table(
        declared.title,
        ("metric", "method", "context", "seeds", *lengths, "chance"),
        rows,
        f"{declared.note} {SEEDS}{difference}",
        frozenset(quoted),
    )


def _paper_retrieval(table: PaperTable | None) -> PaperRetrieval | None:
    """Return the paper's table of retrieval for the groups of its table of R², if it has one."""
    for groups, other in PAPER_TABLES.items():
        if other is table:
            return PAPER_RETRIEVALS.get(groups)
    return None


def _paper_r2(r2: Sequence[float], lengths: Sequence[str]) -> list[Cell]:
    """Return the cells of the encoder and of lengths; a single value is the encoder's."""
    if len(r2) == 1:
        return [r2[0], *(None for _ in lengths)]
    return [None, *paper_by_length(r2, lengths, "{:.3f}")]
