"""Cells of a sweep's tables: pooled values by length, and the paper's rows."""

from collections.abc import Sequence

from contextssl_jax.reports.page import Cell
from contextssl_jax.reports.paper import LENGTHS, PaperRow
from contextssl_jax.sweeps.pooled import Result

SEEDS = "Mean ± standard deviation over seeds (n − 1); a single seed has no deviation."


def by_length(
    result: Result,
    path: tuple[str, ...],
    lengths: Sequence[str],
    factor: float = 1.0,
    digits: int = 3,
) -> list[Cell]:
    """Return a variant's values at a path, one cell for each length."""
    return [result.at(*path, length).cell(factor, digits) for length in lengths]


def split_name(method: str) -> tuple[str, str | None]:
    """Split the paper's name of a row into the method and its context."""
    if not method.endswith(" context"):
        return method, None
    name, _, context = method.removesuffix(" context").rpartition(", ")
    return name, context


def quoted_row(row: PaperRow, cells: Sequence[Cell]) -> list[Cell]:
    """Return one of the paper's rows: method, context, no seeds, and the cells."""
    name, context = split_name(row.method)
    return [f"paper: {name}", context, None, *cells]


def paper_by_length(values: Sequence[float], lengths: Sequence[str], form: str) -> list[Cell]:
    """Return the paper's values, None for lengths that it does not have."""
    known = dict(zip(LENGTHS, values, strict=False))
    return [form.format(known[n]) if n in known else None for n in lengths]
