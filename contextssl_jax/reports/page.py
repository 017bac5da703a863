"""A report's answer, tables and pictures as Markdown, and as one self-contained HTML page."""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from jinja2 import Environment, PackageLoader
from tabulate import tabulate

Cell = str | float | int | None

_MISSING = "–"


class Statement(NamedTuple):
    """One line of a report's answer."""

    subject: str
    verdict: str  # in words
    text: str


class Table(NamedTuple):
    """One table of a report."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]  # floats have 3 decimals, None is an en dash
    caption: str = ""  # what the values are, and of which views
    quoted: frozenset[int] = frozenset()  # indices of the rows that are quoted from the paper
    folded: bool = False  # whether a page shows only the title until it is unfolded


class Picture(NamedTuple):
    """One picture of a report."""

    title: str
    file: str  # name of a PNG beside the page
    caption: str
    alt: str
    folded: bool = False  # see Table


class Explorer(NamedTuple):
    """The interactive picture of nearest views, of HTML pages only; at most one of a page."""

    title: str
    caption: str
    data: Mapping[str, Any]  # for explorer.js, see `explorer`
    folded: bool = False


def markdown(
    title: str,
    introduction: Sequence[str],
    parts: Sequence[Table | Picture],
    answer: Sequence[Statement] = (),
) -> str:
    """Return the report in GitHub's Markdown.

    Args:
      title: of the report.
      introduction: paragraphs of plain text.
      parts: in their order.
      answer: lines that come before the introduction.
    """
    lines = [f"- **{_plain(a.subject)} {_plain(a.verdict)}:** {_plain(a.text)}" for a in answer]
    blocks = [f"# {_plain(title)}", "\n".join(lines), *map(_plain, introduction)]
    for part in parts:
        blocks.append(f"## {_plain(part.title)}")
        if isinstance(part, Table):
            blocks.append(_markdown_table(part))
        else:
            blocks.append(f"![{_plain(part.alt)}]({quote(part.file)})")
        blocks.append(_plain(part.caption))
        if isinstance(part, Table) and part.quoted:
            blocks.append("*Rows in italics are quoted from the paper.*")
    return "\n\n".join(filter(None, blocks)) + "\n"


def aligned(table: Table) -> str:
    """Return a table's header and rows in aligned columns, for a console."""
    rows = [[_format(cell) for cell in row] for row in table.rows]
    return tabulate(
        rows,
        table.header,
        "plain",
        disable_numparse=True,
        colalign=["right" if numeric else "left" for numeric in _numeric_columns(table)],
    )


def html(
    title: str,
    introduction: Sequence[str],
    parts: Sequence[Table | Picture | Explorer],
    images: Mapping[str, bytes],
    answer: Sequence[Statement] = (),
) -> str:
    """Return the report as one HTML page with sortable tables and embedded pictures.

    A page without folded parts has a table of contents.

    Args:
      title: of the report.
      introduction: paragraphs of plain text.
      parts: in their order.
      images: PNG bytes by the pictures' file names.
      answer: lines that come before the introduction.
    """
    encoded = {name: b64encode(data).decode() for name, data in images.items()}
    page: str = _TEMPLATES.get_template("page.html").render(
        title=title,
        answer=answer,
        introduction=introduction,
        parts=parts,
        explores=any(isinstance(part, Explorer) for part in parts),
        images=encoded,
        numeric_columns=_numeric_columns,
        cells=_cells,
    )
    return page


def _format(cell: Cell) -> str:
    if cell is None:
        return _MISSING
    return str(cell) if isinstance(cell, str | int) else f"{cell:z.3f}"  # z: never -0.000


def _number(cell: Cell) -> float | None:
    """Return the value to sort by; "0.91 ± 0.02" and "14" are numbers too."""
    try:
        return float(str(cell).split("±")[0])
    except ValueError:
        return None


def _numeric_columns(table: Table) -> list[bool]:
    columns = [[row[i] for row in table.rows] for i in range(len(table.header))]
    return [all(c is None or _number(c) is not None for c in column) for column in columns]


def _cells(table: Table) -> list[list[tuple[Cell, bool]]]:
    """Return each row's cells, with True for those of numeric columns."""
    numeric = _numeric_columns(table)
    return [list(zip(row, numeric, strict=True)) for row in table.rows]


def _plain(text: str) -> str:
    """Return text as one line without Markdown syntax."""
    line = " ".join(text.split())
    # Underscores inside words are no syntax, and names are easier to read without escapes.
    special = r"[\\`*<|\[\]&~$]|^[#>+-](?= )|(?<![^\W_])_+|_+(?![^\W_])"
    return re.sub(special, lambda match: "".join(f"\\{c}" for c in match[0]), line)


def _markdown_table(table: Table) -> str:
    rules = ["---:" if numeric else "---" for numeric in _numeric_columns(table)]
    lines = [[_plain(name) for name in table.header], rules]
    for i, row in enumerate(table.rows):
        cells = [_plain(_format(c)) for _, c in zip(table.header, row, strict=True)]
        lines.append([f"*{c}*" if c and i in table.quoted else c for c in cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_TEMPLATES = Environment(
    loader=PackageLoader("contextssl_jax.reports"), autoescape=True, keep_trailing_newline=True
)
_TEMPLATES.filters |= {"number": _number, "text": _format}
