"""One table in the paper's layout: methods and contexts as rows, groups and lengths as columns."""

from collections.abc import Sequence

from contextssl_jax.reports.page import Cell, Table
from contextssl_jax.sweeps.cells import SEEDS, by_length, paper_by_length, quoted_row
from contextssl_jax.sweeps.pooled import Result
from contextssl_jax.sweeps.selection import R2Selection, groups_of, lengths_of


def overview(results: Sequence[Result], selection: R2Selection) -> Table:
    """Return one table in the paper's layout, the paper's rows first.

    Args:
      results: variants with reports, in their order.
      selection: the displayed R².
    """
    groups, lengths = groups_of(results), lengths_of(results, selection.paper)
    paper_rows = selection.paper.rows if selection.paper else ()
    reports = [report for result in results for report in result.reports.values()]
    # Classes that models predict themselves replace those from the encoder's features.
    predicts = any("accuracy_told" in report for report in reports)
    quoted: list[list[Cell]] = []
    for row in paper_rows:
        cells = [cell for group in groups for cell in _in_layout(row.r2.get(group), lengths)]
        classes = paper_by_length(row.predicted, lengths, "{:.1f}")
        top1 = None if row.accuracy is None else f"{row.accuracy:.1f}"
        quoted.append(quoted_row(row, [*cells, *(classes if predicts else [top1])]))
    rows: list[list[Cell]] = []
    for result in results:
        for name, label in result.contexts.items():
            cells = []
            for group in groups:
                if result.adapts:
                    cells += by_length(result, selection.path(name, group), lengths)
                else:
                    encoder = result.at(*selection.features_path(group)).cell()
                    cells += [encoder, *(None for _ in lengths[1:])]
            if predicts:
                cells += by_length(result, ("accuracy_told", name), lengths, 100, 1)
            else:
                cells.append(result.at("accuracy_features", "linear", "1.0").cell(100, 1))
            rows.append([result.label, label, len(result.reports), *cells])
    untrained = any(name not in r.environments for r in results if r.adapts for name in r.contexts)
    note = " 'not trained': environments that are not of the training." if untrained else ""
    descriptions = " ".join(f"{group}: {selection.describe(group)}" for group in groups)
    paper = f" {selection.paper.name}. {selection.paper.difference}" if selection.paper else ""
    return Table(
        "In the paper's layout",
        (
            *("method", "context", "seeds"),
            *(f"{group}, {length}" for group in groups for length in lengths),
            *([f"top-1 %, {length}" for length in lengths] if predicts else ["top-1 %"]),
        ),
        [*quoted, *rows],
        "R² of each group from embeddings by tokens of context. Methods without contexts, or with"
        " contexts of a single environment, have one value, from the encoder's features, as in the"
        f" paper. Top-1: {'predicted by the model' if predicts else 'linear probe of features'}."
        f"{note} {descriptions} {SEEDS}{paper}",
        frozenset(range(len(quoted))),
    )


def _in_layout(r2: Sequence[float] | None, lengths: Sequence[str]) -> list[Cell]:
    if r2 is None or len(r2) == 1:
        return [r2[0] if r2 else None, *(None for _ in lengths[1:])]
    return paper_by_length(r2, lengths, "{:.3f}")
