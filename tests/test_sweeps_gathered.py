"""Several sweeps on one page, from files that anyone may have written."""

import json

import pytest
from etils import epath

from contextssl_jax.reports.page import Table
from contextssl_jax.sweeps.__main__ import main
from contextssl_jax.sweeps.stored import read_layout, to_cells

TABLE = Table(
    "", ("method", "context", "crop, 0"), [["paper: A", None, 0.459], ["B", "crop", "0.5 ± 0.1"]],
    "A caption.", frozenset({0}),
)  # fmt: skip
RUN = {"provenance": {"seed": 1, "step": 1200, "device": "2 x cpu"}}


def write(folder, **changes):
    tree = {"title": "A sweep", "command": "python -m launch.sweep --sweep=a.py",
            "runs": [RUN, {"provenance": None}], "layout": to_cells(TABLE)} | changes  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps(tree))
    return str(folder)


def test_what_was_written_is_read_with_where_it_is_from(tmp_path):
    table = read_layout(epath.Path(write(tmp_path / "one")))
    assert table[:3] == ("A sweep", TABLE.header, TABLE.rows) and table.quoted == TABLE.quoted
    assert table.caption == (
        "By python -m launch.sweep --sweep=a.py: 1 runs, seeds 1, of 1,200 steps on 2 x cpu;"
        " 1 runs are missing. A caption."
    )


def test_one_page_has_the_tables_and_the_pictures_of_all(tmp_path, capsys):
    one, two = write(tmp_path / "one"), write(tmp_path / "two", title="Another <b>")
    (tmp_path / "one" / "sweep.png").write_bytes(b"second")
    (tmp_path / "one" / "sweep_plane.png").write_bytes(b"first")
    assert main(["sweeps", one, two, f"--out={tmp_path / 'page'}"]) == 0
    text = (tmp_path / "page" / "tables.md").read_text()
    assert text.index("## A sweep") < text.index("../one/sweep\\_plane.png".replace("\\", ""))
    assert "one/sweep.png" not in text and "| *paper: A* | *–* | *0.459* |" in text
    page = (tmp_path / "page" / "tables.html").read_text()
    assert "Another &lt;b&gt;" in page and 'class="quoted"' in page and "Zmlyc3Q=" in page
    assert capsys.readouterr().out.startswith("see ")


@pytest.mark.parametrize(
    "changes",
    [
        {"layout": None},
        {"layout": to_cells(TABLE) | {"rows": []}},
        {"layout": to_cells(TABLE) | {"rows": [["B"]]}},
        {"layout": to_cells(TABLE) | {"rows": [[{}, None, None]]}},
        {"layout": to_cells(TABLE) | {"quoted": ["x"]}},
        {"layout": to_cells(TABLE) | {"caption": 5}},
        {"runs": [{}]},
        {"runs": [{"provenance": {"seed": "one"}}]},
        {"title": ["x"]},
        {"command": None},
    ],
)
def test_a_damaged_sweep_is_one_line(tmp_path, capsys, changes):
    assert main(["sweeps", write(tmp_path / "one", **changes), f"--out={tmp_path / 'page'}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'one' / 'sweep.json'}: is no sweep's page")
    assert error.count("\n") == 1 and not (tmp_path / "page").exists()


def test_a_folder_without_a_sweep_and_a_page_that_cannot_be_are_one_line(tmp_path, capsys):
    assert main(["sweeps", str(tmp_path), "--out=x"]) == 2
    assert "Make it with python -m launch.sweep" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    one = write(tmp_path / "one")
    assert main(["sweeps", one, f"--out={tmp_path / 'file'}"]) == 2
    assert capsys.readouterr().err.startswith("error: --out: cannot write")
    assert main(["sweeps", "--out=x"]) == 2
