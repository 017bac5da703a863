"""A report's tables and pictures as Markdown, and as one self-contained HTML page."""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple
from urllib.parse import quote

Cell = str | float | int | None

_MISSING = "–"


class Table(NamedTuple):
    """One table of a report."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]  # floats have 3 decimals, None is an en dash
    caption: str = ""  # what the values are, and of which views
    quoted: frozenset[int] = frozenset()  # indices of the rows that are quoted from the paper


class Picture(NamedTuple):
    """One picture of a report."""

    title: str
    file: str  # name of a PNG beside the page
    caption: str
    alt: str


def markdown(title: str, introduction: Sequence[str], parts: Sequence[Table | Picture]) -> str:
    """Return the report in GitHub's Markdown.

    Args:
      title: of the report.
      introduction: paragraphs of plain text.
      parts: in their order.
    """
    blocks = [f"# {_plain(title)}", *map(_plain, introduction)]
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
    lines = [table.header, *([_format(cell) for cell in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    numeric = _numeric_columns(table)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def html(
    title: str,
    introduction: Sequence[str],
    parts: Sequence[Table | Picture],
    images: Mapping[str, bytes],
) -> str:
    """Return the report as one HTML page with sortable tables and embedded pictures.

    Args:
      title: of the report.
      introduction: paragraphs of plain text.
      parts: in their order.
      images: PNG bytes by the pictures' file names.
    """
    contents, sections = "", ""
    for i, part in enumerate(parts):
        heading, notes = escape(part.title), f"<p>{escape(part.caption)}</p>\n"
        if isinstance(part, Table):
            content = _html_table(part)
            notes += _LEGEND if part.quoted else ""
        else:
            data = b64encode(images[part.file]).decode()
            content = f'<img src="data:image/png;base64,{data}" alt="{escape(part.alt)}">'
        figure = f"<figure>\n{content}\n<figcaption>\n{notes}</figcaption>\n</figure>"
        contents += f'<li><a href="#part-{i}">{heading}</a></li>\n'
        sections += f'<section id="part-{i}">\n<h2>{heading}</h2>\n{figure}\n</section>\n'
    return _PAGE.format(
        title=escape(title),
        style=_STYLE,
        introduction="".join(f"<p>{escape(paragraph)}</p>\n" for paragraph in introduction),
        contents=contents,
        sections=sections,
        script=_SCRIPT,
    )


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


def _html_table(table: Table) -> str:
    numeric = _numeric_columns(table)
    header = "".join(
        f'<th scope="col" aria-sort="none"{" class=number" if n else ""}>'
        f'<button type="button">{escape(name)}</button></th>'
        for name, n in zip(table.header, numeric, strict=True)
    )
    lines = [f"<table>\n<thead><tr>{header}</tr></thead>\n<tbody>"]
    for i, row in enumerate(table.rows):
        cells = "".join(_html_cell(c, n) for c, n in zip(row, numeric, strict=True))
        lines.append(f"<tr{' class=quoted' if i in table.quoted else ''}>{cells}</tr>")
    # Only elements with focus can be scrolled with the keyboard.
    attributes = f'class="scroll" role="region" tabindex="0" aria-label="{escape(table.title)}"'
    return "\n".join([f"<div {attributes}>", *lines, "</tbody>\n</table>\n</div>"])


def _html_cell(cell: Cell, numeric: bool) -> str:
    kind = " class=number" if numeric else ""
    value = f' data-value="{_number(cell)}"' if numeric and cell is not None else ""
    return f"<td{kind}{value}>{escape(_format(cell))}</td>"


_LEGEND = '<p class="quoted">Rows in grey are quoted from the paper.</p>\n'

# The content security policy forbids the page to load anything.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{introduction}<nav aria-label="Contents">
<ol>
{contents}</ol>
</nav>
{sections}<script>{script}</script>
</body>
</html>
"""

_STYLE = """
:root { --ink: #1b1f24; --paper: #fff; --quiet: #6a727c; --line: #dfe2e6; --link: #0b5cad; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #dfe3e8; --paper: #15181c; --quiet: #8d96a1; --line: #343a42; --link: #7ab8f5;
    color-scheme: dark; }
}
body { max-width: 70rem; margin: 0 auto; padding: 2rem 1rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; }
h1, h2 { line-height: 1.25; overflow-wrap: break-word; }
h1 { font-size: 1.8rem; }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.25rem; }
h1 ~ p, figcaption { max-width: 48rem; }
a { color: var(--link); }
nav { padding: .25rem 0; border: solid var(--line); border-width: 1px 0; }
figure { margin: 0; }
figcaption { margin-top: .5rem; font-size: .875rem; }
figcaption p { margin: .25rem 0; }
p:empty { display: none; }
.quoted { color: var(--quiet); }
img { max-width: 100%; height: auto; background: #fff; }
.scroll { overflow-x: auto; }
table { border-spacing: 0; border: solid var(--ink); border-width: 2px 0; font-size: .875rem; }
th, td { padding: .25rem .75rem; text-align: left; }
th { border-bottom: 1px solid var(--ink); vertical-align: bottom; --mark: "↕";
  --tint: var(--quiet); }
td { white-space: nowrap; }
tr + tr td { border-top: 1px solid var(--line); }
.number { text-align: right; font-variant-numeric: tabular-nums; }
/* The first column stays in place while a wide table scrolls. */
th:first-child, td:first-child { position: sticky; left: 0; background: var(--paper); }
button { padding: 0; border: 0; background: none; color: inherit; font: inherit;
  text-align: inherit; cursor: pointer; outline-offset: 2px; }
th[aria-sort=ascending] { --mark: "▲"; --tint: var(--link); }
th[aria-sort=descending] { --mark: "▼"; --tint: var(--link); }
/* The mark is on the side away from the numbers, so that headings align with them. */
th:not(.number) button::after, .number button::before { padding: 0 .25em;
  content: var(--mark); color: var(--tint); font-weight: normal; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  .scroll { overflow: visible; }
  th button::before, th button::after { display: none; }
  button { display: contents; }  /* Chromium repeats no boxes on the next page */
  tr, img { break-inside: avoid; }
}
"""

_SCRIPT = """
const next = { none: "ascending", ascending: "descending", descending: "none" };
const { compare } = new Intl.Collator("en", { numeric: true });
for (const table of document.querySelectorAll("table")) {
  const rows = [...table.tBodies[0].rows];  // as they came, which stays the order among equals
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => header.firstElementChild.addEventListener("click", () => {
    const order = next[header.getAttribute("aria-sort")];
    headers.forEach((h) => h.setAttribute("aria-sort", h === header ? order : "none"));
    const numeric = header.classList.contains("number");
    const text = (row) => row.cells[column].textContent;
    const number = (row) => Number(row.cells[column].dataset.value);
    const missing = (row) => (numeric ? Number.isNaN(number(row)) : text(row) === "–");
    const rising = (a, b) => (numeric ? number(a) - number(b) : compare(text(a), text(b)));
    const known = rows.filter((row) => !missing(row));
    known.sort(order === "ascending" ? rising : (a, b) => rising(b, a));
    const sorted = [...known, ...rows.filter(missing)];
    table.tBodies[0].append(...(order === "none" ? rows : sorted));
  }));
}
"""
