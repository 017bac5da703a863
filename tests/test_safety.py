"""Files of strangers are data: nothing in them is run, and what is wrong in them is one line."""

import ast
import json
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts
from etils import epath

from contextssl_jax import compare
from contextssl_jax.checkpoint import _checksum
from contextssl_jax.figures.curves import draw_curves
from contextssl_jax.lock import _machine
from contextssl_jax.main import main

ROOT = Path(__file__).parent.parent
QUICK = ("--config=configs/debug.py", "--config.train.steps=4", "--config.train.warmup_steps=2",
         "--config.monitor.every=0", "--config.checkpoint.every=2", "--config.data.contexts=2",
         "--config.log.every=2", "--config.log.tensorboard=False",
         "--config.train.parallel=jit", "--config.eval.lengths=(0,4)",
         "--config.eval.environments=('crop','blur')", "--config.eval.probe.steps=5",
         "--config.eval.fit_records=40", "--config.eval.test_records=20",
         "--config.eval.images=30", "--config.eval.retrieval.records=3")  # fmt: skip
# Modules that make objects or code of data, and names that do so in others.
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal",
           "yaml", "torch", "code", "codeop", "imp", "runpy", "ctypes", "xmlrpc"}  # fmt: skip
NAMES = {"eval", "exec", "compile", "__import__", "globals", "breakpoint", "input"}
ATTRIBUTES = {"loads": {"json"}, "load": {"json", "np"}, "system": set(), "popen": set(),
              "fromregex": set(), "memmap": set(), "open_memmap": set(), "loadtxt": set(),
              "genfromtxt": set(), "fromfile": set(), "extractall": set(), "extract": set(),
              "unpack_archive": set(), "literal_eval": set(), "import_module": set()}  # fmt: skip


def sources() -> list[Path]:
    found = [file for name in ("contextssl_jax", "configs", "launch")
             for file in (ROOT / name).rglob("*.py")]  # fmt: skip
    return sorted(found)


def forbidden(code: str) -> list[str]:
    """What of a file's code could run what is in data."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [name for name in names if name.split(".")[0] in MODULES]
        if not isinstance(node, ast.Call):
            continue
        called, options = node.func, {word.arg: word.value for word in node.keywords}
        if isinstance(called, ast.Name) and called.id in NAMES:
            found.append(called.id)
        if isinstance(called, ast.Attribute) and called.attr in ATTRIBUTES:
            owner = called.value.id if isinstance(called.value, ast.Name) else "?"
            if owner not in ATTRIBUTES[called.attr]:
                found.append(f"{owner}.{called.attr}")
        name = ast.unparse(called)
        pickles = options.get("allow_pickle")
        if name in ("np.load", "np.lib.format.read_array", "numpy.load") or pickles is not None:
            if not (isinstance(pickles, ast.Constant) and pickles.value is False):
                found.append(f"{name} without allow_pickle=False")
        shell = options.get("shell")
        if shell is not None and not (isinstance(shell, ast.Constant) and shell.value is False):
            found.append(f"{name} with a shell")
    return found


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(ROOT)))
def test_no_source_runs_what_is_in_data(file):
    assert forbidden(file.read_text()) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from torch import load",
        "import yaml as y",
        "x = eval(text)",
        "exec(text)",
        "np.load(file)",
        "np.load(file, allow_pickle=True)",
        "np.load(file, allow_pickle=flag)",
        "np.lib.format.read_array(file)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "tar.extractall(folder)",
        "other.load(file)",
        "other.loads(text)",
        "importlib.import_module(name)",
    ],
)
def test_the_scan_sees_what_it_is_for(code):
    assert forbidden(code)


def run(*arguments: object) -> int:
    return main(["main", *map(str, arguments)])


def compared(*arguments: object) -> int:
    return compare.main(["compare", *map(str, arguments)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with checkpoints 2 and 4, and the report of step 4."""
    workdir = tmp_path_factory.mktemp("run")
    assert run(*QUICK, "--config.eval.every=4", f"--workdir={workdir}") == 0
    return workdir


@pytest.fixture
def workdir(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def assert_one_line(capsys) -> str:
    """Exactly one line says what is wrong, and nothing tells of the code's insides."""
    told = capsys.readouterr().err
    lines = [line for line in told.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in told
    assert lines[0].isprintable() and len(lines[0]) < 3000
    return lines[0]


DEEP = "[" * 100_000
HOSTILE = {
    "empty": b"",
    "garbage": b"\x00\xff\xfe garbage",
    "deep": DEEP.encode(),
    "deep objects": b'{"a":' * 50_000,
    "digits": b"1" * 10_000,
    "list": b"[]",
    "null": b"null",
    "text": b'"<script>"',
    "number": b"1e999",
    "object": b"{}",
    "surrogate": b'{"\\ud800": "\\ud800\\n"}',
    "escape": b'{"\\u001b[31m\\nerror: no": "\\u001b[31m\\n"}',
}
hostile = pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)


def changed(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of a tree with the value at the path."""
    if not path:
        return value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = changed(tree[path[0]], path[1:], value)
    return copy


def renamed(tree: dict, old: str, new: str) -> dict:
    """A copy of a tree whose keys and names `old` are `new`."""
    return json.loads(json.dumps(tree).replace(json.dumps(old), json.dumps(new)))


@hostile
def test_compare_refuses_what_is_no_report(content, workdir, tmp_path, capsys):
    file = workdir / "eval" / "4" / "report.json"
    file.write_bytes(content)
    assert compared(workdir, f"--out={tmp_path / 'out'}") == 2
    assert str(file) in assert_one_line(capsys)
    assert not (tmp_path / "out").exists()


R2 = ("r2", "crop", "blur", "linear", "single")
WRONG = [None, [], {}, "x", "<script>", True, -1, 10**400, 1e308, float("nan"), float("inf"),
         [10**9], ["0"], {"0": None}, {"x": 1.0}]  # fmt: skip
PLACES = [(), ("provenance",), ("provenance", "lengths"), ("provenance", "views"),
          ("provenance", "views", "test"), ("adaptivity",), ("r2",), R2[:3], R2, (*R2, "0"),
          ("r2_features", "crop"), ("retrieval", "crop", "mrr"),
          ("accuracy_features", "linear")]  # fmt: skip


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_a_report_of_the_wrong_kind_is_one_line(place, workdir, tmp_path, capsys):
    """Nowhere, whatever stands there; some changes leave it a report, which is then compared."""
    file = workdir / "eval" / "4" / "report.json"
    report = json.loads(file.read_text())
    refused = 0
    for wrong in WRONG:
        file.write_text(json.dumps(changed(report, place, wrong)))
        status = compared(workdir, f"--out={tmp_path / 'out'}")
        if status:
            assert status == 2
            assert_one_line(capsys)
            refused += 1
    assert refused >= len(WRONG) - 1


@pytest.mark.parametrize(
    "place, wrong",
    [
        (("provenance", "lengths"), list(range(100_000))),
        (("r2_features",), {str(i): {} for i in range(100_000)}),
        (("provenance", "step"), 10**4000),
        (("provenance", "method"), "x" * 10**6),
        (("provenance", "method"), "\x1b[2J"),
        (("provenance", "data"), r"$\frac{$"),
    ],
)
def test_a_report_of_great_size_is_refused(place, wrong, workdir, tmp_path, capsys):
    file = workdir / "eval" / "4" / "report.json"
    file.write_text(json.dumps(changed(json.loads(file.read_text()), place, wrong)))
    assert compared(workdir, f"--out={tmp_path / 'out'}") == 2
    assert_one_line(capsys)


def test_a_large_file_and_a_pipe_are_not_read(workdir, tmp_path, capsys):
    file = workdir / "eval" / "4" / "report.json"
    with open(file, "wb") as opened:
        opened.truncate(1 << 40)  # a hole, which takes no room on disk
    assert compared(workdir, f"--out={tmp_path / 'out'}") == 2
    assert "bytes" in assert_one_line(capsys)
    file.unlink()
    os.mkfifo(file)
    assert compared(workdir, f"--out={tmp_path / 'out'}") == 2
    assert "no regular file" in assert_one_line(capsys)


def test_scripts_in_a_report_stay_text(workdir, tmp_path):
    script, link = "<script>alert(1)</script>", "[x](javascript:alert(1))"
    file = workdir / "eval" / "4" / "report.json"
    report = renamed(renamed(json.loads(file.read_text()), "crop", script), "synthetic", link)
    report["provenance"]["method"] = '"><img src=x onerror=alert(1)>'
    file.write_text(json.dumps(report))
    assert compared(workdir, f"--out={tmp_path / 'out'}") == 0
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert page.count("<script") == 1 and "&lt;script&gt;" in page and "<img src=x" not in page
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert not any(wrong in text.replace("\\<", "") for wrong in ("<script", "<img", "](java"))


@pytest.mark.parametrize("name", ("config.json", "data.json"))
@hostile
def test_a_resume_refuses_what_is_none_of_its_files(name, content, workdir, capsys):
    (workdir / name).write_bytes(content)
    before = sorted(workdir.rglob("*"))
    assert run(*QUICK, f"--workdir={workdir}") == 2
    assert str(workdir) in assert_one_line(capsys)
    assert sorted(workdir.rglob("*")) == before


@pytest.mark.parametrize("name", ("checkpoints.json", "metrics.jsonl", "lock.json"))
@hostile
def test_a_resume_does_without_what_it_can_do_without(name, content, workdir, monkeypatch):
    monkeypatch.setattr("contextssl_jax.lock.time.sleep", lambda seconds: None)
    (workdir / name).write_bytes(content)
    assert run(*QUICK, f"--workdir={workdir}") == 0


@hostile
def test_an_evaluation_refuses_another_config(content, workdir, capsys):
    (workdir / "config.json").write_bytes(content)
    assert run(*QUICK, "--mode=eval", f"--workdir={workdir}") == 2
    assert_one_line(capsys)


@pytest.mark.parametrize(
    "lines",
    [
        '{"step": null}',
        '{"step": 1, "monitor/r2/a": 1}',
        '{"step": 1, "monitor/r2/a/b/c": 1}',
        '{"step": 1, "monitor/r2/a/b/99999999999999999999": 1}',
        '{"step": 1, "predictor_r2": 1, "loss_contrastive": "<b>"}',
        '{"step": 1e999, "loss_contrastive": 1}',
        '{"step": 1, "loss_contrastive": 1e308}\n{"step": 2, "loss_contrastive": -1e308}',
        '{"step": 1, "loss_contrastive": NaN}',
        '{"step": 1, "predictor_r2/$\\\\frac{$": 1}',
        '{"step": 1, "monitor/r2/$x$/$\\\\frac$/0": 1}',
        "\n".join(f'{{"step": 1, "monitor/r2/a/{i}/0": 1}}' for i in range(300)),
    ],
)
def test_curves_are_drawn_of_what_a_run_may_have_told(lines, tmp_path):
    (tmp_path / "metrics.jsonl").write_text(lines + '\n{"step": 5, "loss_contrastive": 1.0}\n')
    assert draw_curves(epath.Path(tmp_path), epath.Path(tmp_path / "curves.png"))


LOCKS = [{"process": value} for value in (None, [], "../../1", 10**400, 1e308, -1, {"a": 1})]
LOCKS += [{"process": os.getppid(), "started": value} for value in (None, [], 1)]
LOCKS += [{"host": "\n" * 9, "since": [[]]}]


@pytest.mark.parametrize("held", LOCKS)
def test_a_lock_that_makes_no_sense_is_taken_over(held, workdir):
    lock = {"host": "h", "process": 1, "since": "s", "machine": _machine(), "started": "1"} | held
    (workdir / "lock.json").write_text(json.dumps(lock))
    assert run(*QUICK, f"--workdir={workdir}") == 0
