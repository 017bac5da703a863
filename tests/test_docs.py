"""The documentation: its examples train, and its commands name existing files and options."""

import ast
import json
import math
import re
import shlex
import sys
from pathlib import Path
from unittest import mock

import pytest
from tiny import TINY, run

import contextssl_jax
from contextssl_jax.config import parse_command_line
from contextssl_jax.data import DATASETS
from contextssl_jax.evaluation.evaluators import EVALUATORS
from contextssl_jax.interface import embed_command, export_command
from contextssl_jax.main import MODES
from contextssl_jax.methods import METHODS
from contextssl_jax.models import ENCODERS
from contextssl_jax.transforms import GROUPS

PAGES = sorted([Path("README.md"), Path("CONTRIBUTING.md"), *Path("docs").rglob("*.md")])
SYNTHETIC = ("--config.data.name=synthetic", "--config.synthetic.train=40",
             "--config.synthetic.test=20")  # fmt: skip
TRAINING_ONLY = ("--config.monitor.every=0", "--config.eval.every=0")
# Options of each example beside TINY.
EXAMPLES = {
    "transform": (*SYNTHETIC, "--config.eval.every=0"),
    "data": (*TRAINING_ONLY, "--config.gratings.train=40", "--config.gratings.test=20",
             "--config.gratings.side=16"),
    "encoder": (*SYNTHETIC, *TRAINING_ONLY, "--config.model.vit.width=8",
                "--config.model.vit.blocks=1"),
    "method": (*SYNTHETIC, *TRAINING_ONLY, "--config.model.projector.widths=(8,6)"),
    "evaluator": (*SYNTHETIC, "--config.monitor.every=0"),
}  # fmt: skip


def blocks(page: Path, language: str) -> list[tuple[str | None, str]]:
    """Return the title and the code of every fenced block of a language."""
    pattern = rf'^```{language}(?: title="(.*?)")?\n(.*?)^```$'
    return re.findall(pattern, page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def registries(monkeypatch):
    """Remove what an example registers, and its module, after the test."""
    monkeypatch.delitem(sys.modules, "config_config", raising=False)
    with (
        mock.patch.dict(GROUPS),
        mock.patch.dict(DATASETS),
        mock.patch.dict(ENCODERS),
        mock.patch.dict(METHODS),
        mock.patch.dict(EVALUATORS),
    ):
        yield


def test_every_own_page_has_a_test():
    assert {page.stem for page in Path("docs").glob("own_*.md")} == {f"own_{k}" for k in EXAMPLES}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_example_of_an_own_page_trains(kind, tmp_path):
    ((title, code),) = [b for b in blocks(Path(f"docs/own_{kind}.md"), "python") if b[0]]
    assert title == f"own_{kind}.py"
    path, workdir = tmp_path / title, tmp_path / "run"
    path.write_text(code)
    assert run(f"--config={path}", *TINY, *EXAMPLES[kind], f"--workdir={workdir}") == 0
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 2 and all(map(math.isfinite, losses))
    if kind == "transform":  # the monitor has it
        assert any("desaturate" in key for line in lines for key in line if "monitor" in key)
    if kind == "evaluator":
        folder = workdir / "eval" / "2"
        ranks = json.loads((folder / "report.json").read_text())["effective_rank"]
        assert ranks.keys() == {"crop", "none"} and ranks["crop"].keys() == {"0", "2"}
        assert all(1 <= value <= 16 for tree in ranks.values() for value in tree.values())
        assert "## Effective rank" in (folder / "report.md").read_text()


def commands() -> list[tuple[str, list[str]]]:
    """Return every command of the main program in bash blocks and inline code, by page."""
    found = []
    for page in PAGES:
        text = page.read_text()
        code = [code for _, code in blocks(page, "bash")]
        code += re.findall(r"`(python -m contextssl_jax\.main [^`]+)`", text)
        for line in "\n".join(code).replace("\\\n", " ").splitlines():
            _, name, arguments = line.partition("contextssl_jax.main ")
            if name and "…" not in arguments:
                found.append((str(page), shlex.split(arguments, comments=True)))
    return found


@pytest.mark.parametrize("page, arguments", commands())
def test_command_of_a_page_is_valid(page, arguments):
    if any(re.fullmatch(r"--config=own_\w+\.py", argument) for argument in arguments):
        return  # the example above
    if "--help" in arguments:
        assert run(*arguments) == 0
        return
    for mode, parse in (("embed", embed_command.parse), ("export", export_command.parse)):
        if f"--mode={mode}" in arguments:
            assert parse([one for one in arguments if one != f"--mode={mode}"]).model
            return
    command = parse_command_line(["main", *arguments], tuple(MODES))
    assert command.config.seed == 0


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_python_of_a_page_parses(page):
    for _, code in blocks(page, "python"):
        ast.parse(code)


def test_readme_is_short():
    assert len(Path("README.md").read_text().split()) <= 1500


def test_citation_has_the_version():
    assert f"\nversion: {contextssl_jax.__version__}\n" in Path("CITATION.cff").read_text()


def test_every_room_and_page_is_in_the_navigation():
    navigation = Path("mkdocs.yml").read_text()
    rooms = {path.parent.name for path in Path("contextssl_jax").glob("*/__init__.py")}
    assert rooms <= {path.stem for path in Path("docs/reference").glob("*.md")}
    for page in Path("docs").rglob("*.md"):
        assert str(page.relative_to("docs")) in navigation


def test_files_that_pages_name_exist():
    pattern = r"`((?:configs|contextssl_jax|launch|tests)/[\w./]*)`"
    for page in PAGES:
        for name in re.findall(pattern, page.read_text()):
            assert Path(name).exists(), f"{page}: {name}"
