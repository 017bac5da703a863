"""A report says the same in Markdown and in HTML, and its page needs nothing else."""

import base64
import re
from html.parser import HTMLParser

import pytest

from contextssl_jax.reports.page import Picture, Statement, Table, html, markdown

SPECIAL = 'a <b> & |c| "d"'
SCORES = Table(
    f"Scores {SPECIAL}",
    ("method", "R² rotation", "step", f"note {SPECIAL}"),
    [
        ("ours_v1", 0.12345, 2000, SPECIAL),
        ("theirs", -0.00001, None, "line\nbreak"),
        ("both", None, 14, None),
        ("SimCLR", 2.0, -3, ""),
    ],
    f"Held-out split, seed 0 {SPECIAL}.",
    frozenset({1}),
)
SPREADS = Table("Spreads", ("probe", "mean ± std"), [("linear", "0.91 ± 0.02"), ("kNN", None)])
CURVES = Picture("Curves", "curves one.png", f"What is seen {SPECIAL}.", f"Curves {SPECIAL}")
PNG = bytes(range(256))
REPORT = (f"Report {SPECIAL}", ["One paragraph.", SPECIAL], [SCORES, CURVES, SPREADS])
SHOWN = [
    ["ours_v1", "0.123", "2000", SPECIAL],
    ["theirs", "0.000", "–", "line break"],
    ["both", "–", "14", "–"],
    ["SimCLR", "2.000", "-3", ""],
]
VOID = {"meta", "link", "img"}


class Reader(HTMLParser):
    """Fails on tags that do not balance; keeps attributes by tag, and cells by row."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if "th" in self.open or "td" in self.open:
            self.rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page() -> str:
    return html(*REPORT, {"curves one.png": PNG})


def cells(line: str) -> list[str]:
    """Splits a line of a Markdown table as GitHub does."""
    assert line.startswith("| ") and line.endswith(" |")
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line[1:-1])]


def unescape(text: str) -> str:
    return re.sub(r"\\(\W)", r"\1", text)


def test_html_shows_everything(page):
    reader = Reader(page)
    rows = [[" ".join(cell.split()) for cell in row] for row in reader.rows]
    assert rows[:5] == [list(SCORES.header), *SHOWN]
    assert rows[5:] == [list(SPREADS.header), ["linear", "0.91 ± 0.02"], ["kNN", "–"]]
    for text in (*REPORT[1], *(part.title for part in REPORT[2]), SCORES.caption, CURVES.caption):
        assert text in reader.text
    regions = [div["aria-label"] for div in reader.all("div")]
    assert regions == [SCORES.title, SPREADS.title]
    targets = [link["href"] for link in reader.all("a")]
    assert targets == [f"#{section['id']}" for section in reader.all("section")]
    assert len(targets) == len(REPORT[2])


def test_markdown_shows_everything():
    text = markdown(*REPORT)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    table = [[unescape(cell) for cell in cells(line)] for line in lines]
    quoted = [f"*{cell}*" for cell in SHOWN[1]]
    assert table[0] == list(SCORES.header)
    assert table[1] == ["---", "---:", "---:", "---"]
    assert table[2:6] == [SHOWN[0], quoted, *SHOWN[2:]]
    assert table[6:8] == [list(SPREADS.header), ["---", "---:"]]
    for part in (*REPORT[1], *(part.title for part in REPORT[2]), SCORES.caption, CURVES.caption):
        assert part in unescape(text)
    assert f"![{CURVES.alt}](curves%20one.png)" in unescape(text)
    assert "ours_v1" in text and not re.search(r"(?<!\\)[<&]", text)


def test_numbers_can_be_sorted_and_gaps_cannot(page):
    # What the script reads: the exact value, and nothing where there is none.
    found = [cell for cell in Reader(page).all("td") if cell.get("class") == "number"]
    values = ["0.12345", "2000.0", "-1e-05", None, None, "14.0", "2.0", "-3.0", "0.91", None]
    assert [cell.get("data-value") for cell in found] == values
    headers = Reader(page).all("th")
    assert [header.get("class") for header in headers] == [
        *(None, "number", "number", None),
        *(None, "number"),
    ]
    assert all(header["aria-sort"] == "none" for header in headers)
    assert len(Reader(page).all("button")) == len(headers)


def test_page_needs_nothing_else(page):
    reader = Reader(page)
    (image,) = reader.all("img")
    kind, data = image["src"].split(",")
    assert kind == "data:image/png;base64" and base64.b64decode(data) == PNG
    assert image["alt"] == CURVES.alt
    for _, attributes in reader.tags:
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith(("#", "data:"))
    assert not re.search(r"https?://|@import|url\(", page)


def test_rows_of_the_paper_are_marked(page):
    legend = "quoted from the paper"
    rows = [row.get("class") for row in Reader(page).all("tr")]
    assert [i for i, name in enumerate(rows) if name] == [2] and rows[2] == "quoted"
    assert page.count(legend) == markdown(*REPORT).count(legend) == 1
    own = [SCORES._replace(quoted=frozenset())]
    assert legend not in html("", [], own, {}) + markdown("", [], own)


@pytest.mark.parametrize("row", [("a",), ("a", 1.0, 2.0)])
def test_every_row_has_every_column(row):
    table = Table("Ragged", ("name", "value"), [("b", 0.5), row])
    for write in (lambda: markdown("", [], [table]), lambda: html("", [], [table], {})):
        with pytest.raises((ValueError, IndexError)):
            write()


def test_a_page_opens_with_its_answer():
    answer = [Statement(SPECIAL, "adapts partly", f"kept .81 {SPECIAL}."), Statement("b", "c", "d")]
    page, text = html(*REPORT, {"curves one.png": PNG}, answer), markdown(*REPORT, answer)
    items = [f"{SPECIAL} adapts partly: kept .81 {SPECIAL}.", "b c: d"]
    reader = Reader(page)
    places = [reader.text.index(item) for item in (*items, REPORT[1][0], SCORES.title)]
    assert places == sorted(places)
    assert [item.get("data-verdict") for item in reader.all("li")][:2] == ["adapts partly", "c"]
    lines = [unescape(line) for line in text.splitlines()]
    assert lines[2] == f"- **{SPECIAL} adapts partly:** kept .81 {SPECIAL}."
    assert lines[3] == "- **b c:** d" and lines[5] == REPORT[1][0]


def test_folded_parts_show_their_titles_and_need_no_contents():
    parts = [CURVES, SCORES._replace(folded=True), SPREADS._replace(folded=True)]
    reader = Reader(html("", [], parts, {"curves one.png": PNG}))
    assert len(reader.all("details")) == len(reader.all("summary")) == 2
    assert not reader.all("nav") and not any("open" in part for part in reader.all("details"))
    assert markdown("", [], parts) == markdown("", [], [CURVES, SCORES, SPREADS])
