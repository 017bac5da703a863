"""The tables of a sweep's page: R² of each group, adaptivity, classes and retrieval over seeds."""

from collections.abc import Sequence

from contextssl_jax.figures.style import PROBES
from contextssl_jax.reports.page import Cell, Table
from contextssl_jax.reports.paper import (
    PAPER_RETRIEVALS,
    PAPER_TABLES,
    PaperRetrieval,
    PaperTable,
)
from contextssl_jax.sweeps.cells import SEEDS, by_length, paper_by_length, quoted_row, split_name
from contextssl_jax.sweeps.layout import overview
from contextssl_jax.sweeps.measure import Measure, groups_of, lengths_of
from contextssl_jax.sweeps.pooled import Result

_MEASURES = {"mrr": "MRR", "hit@1": "H@1", "hit@5": "H@5"}


def tables(results: Sequence[Result], measure: Measure) -> list[Table]:
    """Returns the tables, those that have figures.

    Args:
      results: points that are done, in their order.
      measure: whose R² is shown.
    """
    groups = groups_of(results)
    made = [
        overview(results, measure),
        *(_r2(results, measure, group) for group in groups),
        _adaptivity(results, measure, groups),
        *(_erasure(results, measure, group) for group in groups),
        _classes(results, measure),
        _retrieval(results, measure),
    ]
    return [table for table in made if table.rows]


def _erasure(results: Sequence[Result], measure: Measure, group: str) -> Table:
    lengths = lengths_of(results)
    names = {"readable": "R² by least squares", "share": "share of variance"}
    rows: list[list[Cell]] = [
        [
            *(result.label, shown, len(result.reports), title),
            *by_length(result, ("erasure", name, group, figure), lengths),
        ]
        for result in results
        for name, shown in result.contexts.items()
        if any("erasure" in report for report in result.reports.values())
        for figure, title in names.items()
    ]
    return Table(
        f"Erased or squeezed: {group}",
        ("method", "context", "seeds", "measure", *lengths),
        rows,
        "Of embeddings, by tokens of context: what least squares reads of the group's latents in"
        " double precision and without a penalty, and the share of the embeddings' variance that a"
        " polynomial of second degree in these latents explains. What is read with a share near 0"
        f" is squeezed; what is not read is erased. {SEEDS}",
    )


def _r2(results: Sequence[Result], measure: Measure, group: str) -> Table:
    lengths = lengths_of(results, measure)
    paper = measure.paper
    quoted: list[list[Cell]] = [
        quoted_row(row, _paper_r2(row.r2[group], lengths))
        for row in (paper.rows if paper else ())
        if group in row.r2
    ]
    rows: list[list[Cell]] = [
        [
            *(result.label, shown, len(result.reports)),
            result.at(*measure.features(group)).cell(),
            *by_length(result, measure.path(name, group), lengths),
        ]
        for result in results
        for name, shown in result.contexts.items()
    ]
    difference = f" {paper.name}. {paper.difference}" if paper and quoted else ""
    return Table(
        f"R² of {group}",
        ("method", "context", "seeds", "encoder", *lengths),
        [*quoted, *rows],
        f"{measure.described(group)} Encoder: of its features, which is what the paper reports of"
        " methods without contexts. Then of embeddings by tokens of context, which is what it"
        f" reports of ContextSSL; a method without contexts has those of 0 tokens. {SEEDS}"
        f"{difference}",
        frozenset(range(len(quoted))),
    )


def _adaptivity(results: Sequence[Result], measure: Measure, groups: Sequence[str]) -> Table:
    name, lengths = measure.kind.replace("r2", "adaptivity"), lengths_of(results)
    rows: list[list[Cell]] = [
        [
            *(group, result.label, len(result.reports)),
            *by_length(result, (name, group, measure.probe(group), measure.target), lengths),
        ]
        for group in groups
        for result in results
        if result.adapts
    ]
    probes = "; ".join(f"{group}: {PROBES[measure.probe(group)]}" for group in groups)
    return Table(
        "Adaptivity",
        ("group", "method", "seeds", *lengths),
        rows,
        "How far a group's R² under its own context lies above its R² under the others', by tokens"
        f" of context: 0 is no adaptation. {measure.told.capitalize()}. {probes}. Methods that read"
        f" no contexts, or those of one environment alone, have none. {SEEDS}",
    )


def _classes(results: Sequence[Result], measure: Measure) -> Table:
    told = [r for r in results if any("accuracy_told" in x for x in r.reports.values())]
    paper = measure.paper.rows if measure.paper else ()
    some_told = bool(told) or any(row.told for row in paper)
    lengths = lengths_of(results, measure) if some_told else []
    quoted: list[list[Cell]] = []
    for row in paper:
        top1 = None if row.accuracy is None else f"{row.accuracy:.1f}"
        line = quoted_row(row, [top1, None, *paper_by_length(row.told, lengths, "{:.1f}")])
        if not some_told:
            del line[1]
        if line not in quoted:  # the encoder's accuracy is the same under every context
            quoted.append(line)
    rows: list[list[Cell]] = []
    for result in results:
        features = [
            result.at("accuracy_features", probe, "1.0").cell(100, 1) for probe in ("linear", "knn")
        ]
        if not some_told:
            if any(cell is not None for cell in features):
                rows.append([result.label, len(result.reports), *features])
            continue
        for name, shown in result.environments_of("accuracy_told").items():
            by = by_length(result, ("accuracy_told", name), lengths, 100, 1)
            rows.append([result.label, shown, len(result.reports), *features, *by])
    columns = ("method", *(("context",) if some_told else ()), "seeds", "linear", "kNN")
    by_model = (
        " By tokens of context: told by the model itself, on transformed views, by the"
        " labels that hold under that context."
        if some_told
        else ""
    )
    return Table(
        "Classes, top-1 %",
        (*columns, *lengths),
        [*quoted, *rows] if rows else [],
        "Linear, kNN: from the encoder's features of untouched images (where the data set has"
        f" such), all labels.{by_model} {SEEDS}",
        frozenset(range(len(quoted))),
    )


def _retrieval(results: Sequence[Result], measure: Measure) -> Table:
    lengths = lengths_of(results, measure)
    paper = _paper_retrieval(measure.paper)
    rows: list[list[Cell]] = []
    quoted: set[int] = set()
    for key, title in _MEASURES.items():
        for method, figures in paper.rows if paper else ():
            quoted.add(len(rows))
            name, context = split_name(method)
            by = paper_by_length(figures[key], lengths, "{:.3f}")
            rows.append([title, f"paper: {name}", context, None, *by, None])
        for result in results:
            for name, shown in result.environments_of("retrieval").items():
                by = by_length(result, ("retrieval", name, key), lengths)
                by_chance = result.at("provenance", "retrieval_chance", key).cell()
                rows.append([title, result.label, shown, len(result.reports), *by, by_chance])
    difference = f" {paper.name}. {paper.difference}" if paper else ""
    return Table(
        "Retrieval",
        ("measure", "method", "context", "seeds", *lengths, "chance"),
        rows,
        "Query: a view and the action to another, told of the shown groups alone; candidates: the"
        f" views of its record. By tokens of context. {SEEDS}{difference}",
        frozenset(quoted),
    )


def _paper_retrieval(table: PaperTable | None) -> PaperRetrieval | None:
    """Returns the table of retrieval that belongs to one of R², if there is one."""
    for groups, other in PAPER_TABLES.items():
        if other is table:
            return PAPER_RETRIEVALS.get(groups)
    return None


def _paper_r2(figures: Sequence[float], lengths: Sequence[str]) -> list[Cell]:
    """A single figure is the encoder's; others go by length."""
    if len(figures) == 1:
        return [figures[0], *(None for _ in lengths)]
    return [None, *paper_by_length(figures, lengths, "{:.3f}")]
