"""The tables of a sweep's page: R² of each group, adaptivity, classes and retrieval over seeds."""

from collections.abc import Sequence

from contextssl_jax.evaluation.page import Cell, Table
from contextssl_jax.evaluation.paper import (
    LENGTHS,
    PAPER_RETRIEVALS,
    PAPER_TABLES,
    PaperRetrieval,
    PaperRow,
    PaperTable,
)
from contextssl_jax.figures.style import PROBES
from contextssl_jax.sweeps.measure import Measure, groups_of, lengths_of
from contextssl_jax.sweeps.pooled import Result

_MEASURES = {"mrr": "MRR", "hit@1": "H@1", "hit@5": "H@5"}
_SEEDS = "Mean ± standard deviation over seeds (n − 1); a single seed has no deviation."


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


def overview(results: Sequence[Result], measure: Measure) -> Table:
    """Returns one table in the paper's layout, its rows before ours.

    Args:
      results: points that are done, in their order.
      measure: whose R² is shown.
    """
    groups, lengths = groups_of(results), lengths_of(results, measure)
    quoted = [
        _quoted(
            row,
            [
                *(cell for group in groups for cell in _in_layout(row.r2.get(group), lengths)),
                None if row.accuracy is None else f"{row.accuracy:.1f}",
            ],
        )
        for row in (measure.paper.rows if measure.paper else ())
    ]
    rows: list[list[Cell]] = []
    for result in results:
        for name, shown in result.contexts.items():
            cells: list[Cell] = []
            for group in groups:
                if result.reads:
                    cells += _by_length(result, measure.path(name, group), lengths)
                else:
                    encoder = result.at(*measure.features(group)).cell()
                    cells += [encoder, *(None for _ in lengths[1:])]
            accuracy = result.at("accuracy_features", "linear", "1.0").cell(100, 1)
            rows.append([result.label, shown, len(result.reports), *cells, accuracy])
    measured = " ".join(measure.described(group) for group in groups)
    return Table(
        "In the paper's layout",
        (
            *("method", "context", "seeds"),
            *(f"{group}, {length}" for group in groups for length in lengths),
            "top-1 %",
        ),
        [*quoted, *rows],
        f"R² of each group by tokens of context, of embeddings; of methods without contexts a"
        f" single figure, of the encoder's features, as in the paper. Top-1: linear, from features."
        f" {measured} {_SEEDS}",
        frozenset(range(len(quoted))),
    )


def _in_layout(figures: Sequence[float] | None, lengths: Sequence[str]) -> list[Cell]:
    if figures is None or len(figures) == 1:
        return [figures[0] if figures else None, *(None for _ in lengths[1:])]
    return _paper_by_length(figures, lengths, "{:.3f}")


def _erasure(results: Sequence[Result], measure: Measure, group: str) -> Table:
    lengths = lengths_of(results)
    names = {"readable": "R² by least squares", "share": "share of variance"}
    rows: list[list[Cell]] = [
        [
            *(result.label, shown, len(result.reports), title),
            *_by_length(result, ("erasure", name, group, figure), lengths),
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
        f" is squeezed; what is not read is erased. {_SEEDS}",
    )


def _r2(results: Sequence[Result], measure: Measure, group: str) -> Table:
    lengths = lengths_of(results, measure)
    paper = measure.paper
    quoted: list[list[Cell]] = [
        _quoted(row, _paper_r2(row.r2[group], lengths))
        for row in (paper.rows if paper else ())
        if group in row.r2
    ]
    rows: list[list[Cell]] = [
        [
            *(result.label, shown, len(result.reports)),
            result.at(*measure.features(group)).cell(),
            *_by_length(result, measure.path(name, group), lengths),
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
        f" reports of ContextSSL; a method without contexts has those of 0 tokens. {_SEEDS}"
        f"{difference}",
        frozenset(range(len(quoted))),
    )


def _adaptivity(results: Sequence[Result], measure: Measure, groups: Sequence[str]) -> Table:
    name, lengths = measure.kind.replace("r2", "adaptivity"), lengths_of(results)
    rows: list[list[Cell]] = [
        [
            *(group, result.label, len(result.reports)),
            *_by_length(result, (name, group, measure.probe(group), measure.target), lengths),
        ]
        for group in groups
        for result in results
    ]
    probes = "; ".join(f"{group}: {PROBES[measure.probe(group)]}" for group in groups)
    return Table(
        "Adaptivity",
        ("group", "method", "seeds", *lengths),
        rows,
        "How far a group's R² under its own context lies above its R² under the others', by tokens"
        f" of context: 0 is no adaptation. {measure.told.capitalize()}. {probes}. A"
        f" method without contexts has none. {_SEEDS}",
    )


def _classes(results: Sequence[Result], measure: Measure) -> Table:
    told = [r for r in results if any("accuracy_told" in x for x in r.reports.values())]
    paper = measure.paper.rows if measure.paper else ()
    some_told = bool(told) or any(row.told for row in paper)
    lengths = lengths_of(results, measure) if some_told else []
    quoted: list[list[Cell]] = []
    for row in paper:
        top1 = None if row.accuracy is None else f"{row.accuracy:.1f}"
        line = _quoted(row, [top1, None, *_paper_by_length(row.told, lengths, "{:.1f}")])
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
            by = _by_length(result, ("accuracy_told", name), lengths, 100, 1)
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
        f" such), all labels.{by_model} {_SEEDS}",
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
            name, context = _split(method)
            by = _paper_by_length(figures[key], lengths, "{:.3f}")
            rows.append([title, f"paper: {name}", context, None, *by, None])
        for result in results:
            for name, shown in result.environments_of("retrieval").items():
                by = _by_length(result, ("retrieval", name, key), lengths)
                by_chance = result.at("provenance", "retrieval_chance", key).cell()
                rows.append([title, result.label, shown, len(result.reports), *by, by_chance])
    difference = f" {paper.name}. {paper.difference}" if paper else ""
    return Table(
        "Retrieval",
        ("measure", "method", "context", "seeds", *lengths, "chance"),
        rows,
        "Query: a view and the action to another, told of the shown groups alone; candidates: the"
        f" views of its record. By tokens of context. {_SEEDS}{difference}",
        frozenset(quoted),
    )


def _by_length(
    result: Result,
    path: tuple[str, ...],
    lengths: Sequence[str],
    factor: float = 1.0,
    digits: int = 3,
) -> list[Cell]:
    return [result.at(*path, length).cell(factor, digits) for length in lengths]


def _paper_retrieval(table: PaperTable | None) -> PaperRetrieval | None:
    """Returns the table of retrieval that belongs to one of R², if there is one."""
    for groups, other in PAPER_TABLES.items():
        if other is table:
            return PAPER_RETRIEVALS.get(groups)
    return None


def _split(method: str) -> tuple[str, str | None]:
    """Splits the paper's name of a row into the method and its context."""
    if not method.endswith(" context"):
        return method, None
    name, _, context = method.removesuffix(" context").rpartition(", ")
    return name, context


def _quoted(row: PaperRow, cells: Sequence[Cell]) -> list[Cell]:
    """One of the paper's rows: method, context, no seeds, and the cells."""
    name, context = _split(row.method)
    return [f"paper: {name}", context, None, *cells]


def _paper_r2(figures: Sequence[float], lengths: Sequence[str]) -> list[Cell]:
    """A single figure is the encoder's; others go by length."""
    if len(figures) == 1:
        return [figures[0], *(None for _ in lengths)]
    return [None, *_paper_by_length(figures, lengths, "{:.3f}")]


def _paper_by_length(figures: Sequence[float], lengths: Sequence[str], form: str) -> list[Cell]:
    known = dict(zip(LENGTHS, figures, strict=False))
    return [form.format(known[n]) if n in known else None for n in lengths]
