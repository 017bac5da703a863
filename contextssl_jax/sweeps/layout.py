"""One table in the paper's layout: a method and context a row, groups and lengths the columns."""

from collections.abc import Sequence

from contextssl_jax.reports.page import Cell, Table
from contextssl_jax.sweeps.cells import SEEDS, by_length, paper_by_length, quoted_row
from contextssl_jax.sweeps.measure import Measure, groups_of, lengths_of
from contextssl_jax.sweeps.pooled import Result


def overview(results: Sequence[Result], measure: Measure) -> Table:
    """Returns one table in the paper's layout, its rows before ours.

    Args:
      results: points that are done, in their order.
      measure: whose R² is shown.
    """
    groups, lengths = groups_of(results), lengths_of(results, measure)
    theirs = measure.paper.rows if measure.paper else ()
    reports = [report for result in results for report in result.reports.values()]
    # Where models tell classes by themselves, these stand in the place of the encoder's.
    tells = any("accuracy_told" in report for report in reports)
    quoted: list[list[Cell]] = []
    for row in theirs:
        cells = [cell for group in groups for cell in _in_layout(row.r2.get(group), lengths)]
        classes = paper_by_length(row.told, lengths, "{:.1f}")
        top1 = None if row.accuracy is None else f"{row.accuracy:.1f}"
        quoted.append(quoted_row(row, [*cells, *(classes if tells else [top1])]))
    rows: list[list[Cell]] = []
    for result in results:
        for name, shown in result.contexts.items():
            cells = []
            for group in groups:
                if result.adapts:
                    cells += by_length(result, measure.path(name, group), lengths)
                else:
                    encoder = result.at(*measure.features(group)).cell()
                    cells += [encoder, *(None for _ in lengths[1:])]
            if tells:
                cells += by_length(result, ("accuracy_told", name), lengths, 100, 1)
            else:
                cells.append(result.at("accuracy_features", "linear", "1.0").cell(100, 1))
            rows.append([result.label, shown, len(result.reports), *cells])
    untrained = any(name not in r.environments for r in results if r.adapts for name in r.contexts)
    told = " Not trained: contexts that training never showed." if untrained else ""
    measured = " ".join(f"{group}: {measure.described(group)}" for group in groups)
    paper = f" {measure.paper.name}. {measure.paper.difference}" if measure.paper else ""
    return Table(
        "In the paper's layout",
        (
            *("method", "context", "seeds"),
            *(f"{group}, {length}" for group in groups for length in lengths),
            *([f"top-1 %, {length}" for length in lengths] if tells else ["top-1 %"]),
        ),
        [*quoted, *rows],
        "R² of each group by tokens of context, of embeddings; of methods that read no contexts, or"
        " those of one environment alone, a single figure, of the encoder's features, as in the"
        " paper. Top-1:"
        f" {'told by the model itself' if tells else 'linear, from features'}.{told} {measured}"
        f" {SEEDS}{paper}",
        frozenset(range(len(quoted))),
    )


def _in_layout(figures: Sequence[float] | None, lengths: Sequence[str]) -> list[Cell]:
    if figures is None or len(figures) == 1:
        return [figures[0] if figures else None, *(None for _ in lengths[1:])]
    return paper_by_length(figures, lengths, "{:.3f}")
