"""Untrusted files: no code in them is executed, and invalid content is a one-line error."""

import ast
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tensorstore as ts
from etils import epath
from test_compare import report
from tiny import QUICK, run

from contextssl_jax.config import to_json
from contextssl_jax.data.bench3d.shards import check_index, read_json
from contextssl_jax.errors import UserError
from contextssl_jax.figures.curves import draw_curves
from contextssl_jax.reports import comparison
from contextssl_jax.run.checkpoint import _read_saved_steps
from contextssl_jax.run.checksums import _checksum
from contextssl_jax.run.lock import Lock, _machine_id
from contextssl_jax.run.metric_writer import _remove_later_lines
from contextssl_jax.run.workdir import acquire_workdir

ROOT = Path(__file__).parent.parent
# Modules and functions that create objects from data or execute code.
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal",
           "yaml", "code", "codeop", "imp", "runpy", "ctypes", "xmlrpc"}  # fmt: skip
NAMES = {"eval", "exec", "compile", "__import__", "globals", "breakpoint", "input"}
ATTRIBUTES = {"loads": {"json"}, "load": {"json", "np", "torch", "image"}, "system": set(),
              "popen": set(), "fromregex": set(), "memmap": set(),
              "open_memmap": set(), "loadtxt": set(), "genfromtxt": set(),
              "fromfile": set(), "extractall": set(), "extract": set(),
              "unpack_archive": set(), "literal_eval": set(), "import_module": set()}  # fmt: skip


# The one module that may import ctypes, and what it may use of it and call in the loaded C library.
C_CALLS = ROOT / "contextssl_jax/run/host_memory.py"
CTYPES = {"CDLL", "c_size_t", "c_void_p"}
LIBC = {"mallopt", "malloc", "madvise", "free"}


def sources() -> list[Path]:
    found = [file for name in ("contextssl_jax", "configs", "launch")
             for file in (ROOT / name).rglob("*.py")]  # fmt: skip
    return sorted(found)


def forbidden(code: str) -> list[str]:
    """Return the imports and calls in a source file that could execute untrusted data."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [name for name in names if name.split(".")[0] in MODULES]
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
                found.append(node.module)  # its functions are recognized by "torch."
            if any(alias.name.startswith("ctypes") and alias.asname for alias in node.names):
                found.append("ctypes by another name")
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ctypes"):
                found.append(node.module)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ctypes":
            found += [f"ctypes.{node.attr}"] if node.attr not in CTYPES else []
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
        if name == "ctypes.CDLL" and [ast.unparse(argument) for argument in node.args] != ["None"]:
            found.append("ctypes.CDLL of a file")
        pickles = options.get("allow_pickle")
        if name in ("np.load", "np.lib.format.read_array", "numpy.load") or pickles is not None:
            if not (isinstance(pickles, ast.Constant) and pickles.value is False):
                found.append(f"{name} without allow_pickle=False")
        if name == "torch.load":
            safe = options.get("weights_only")
            if not (isinstance(safe, ast.Constant) and safe.value is True):
                found.append(f"{name} without weights_only=True")
        shell = options.get("shell")
        if shell is not None and not (isinstance(shell, ast.Constant) and shell.value is False):
            found.append(f"{name} with a shell")
    return found


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(ROOT)))
def test_no_source_executes_data(file):
    assert forbidden(file.read_text()) == (["ctypes"] if file == C_CALLS else [])


def test_the_c_library_is_called_for_memory_alone():
    called = re.findall(r"\blibc\.(\w+)", C_CALLS.read_text())
    assert set(called) == LIBC


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from ctypes import CDLL",
        "from ctypes.util import find_library",
        "import ctypes as c",
        "ctypes.CDLL(path)",
        "ctypes.CDLL(name=path)",
        "ctypes.PyDLL(None)",
        "ctypes.cdll.LoadLibrary(path)",
        "ctypes.CFUNCTYPE(None)(address)",
        "from torch import load",
        "torch.load(file)",
        "torch.load(file, weights_only=flag)",
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
def test_scan_detects_forbidden_code(code):
    assert forbidden(code)


def compared(*arguments: object) -> int:
    return comparison.main(["compare", *map(str, arguments)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train a run with checkpoints 2 and 4."""
    workdir = tmp_path_factory.mktemp("run")
    assert run(*QUICK, f"--workdir={workdir}") == 0
    return workdir


@pytest.fixture
def workdir(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def reported(tmp_path):
    """Write the report of a run, and return its file."""
    file = tmp_path / "run" / "eval" / "4" / "report.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(report(("crop", "blur"), (0, 4), 0.5, 0.1)))
    return file


def assert_one_line(capsys) -> str:
    """Assert that exactly one error line and no traceback is printed, and return the line."""
    printed = capsys.readouterr().err
    lines = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in printed
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
    """Return a copy of a tree with the value at the path."""
    if not path:
        return value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = changed(tree[path[0]], path[1:], value)
    return copy


def renamed(tree: dict, old: str, new: str) -> dict:
    """Return a copy of a tree in which the string `old` is replaced by `new`."""
    return json.loads(json.dumps(tree).replace(json.dumps(old), json.dumps(new)))


@hostile
def test_compare_rejects_an_invalid_report(content, reported, tmp_path, capsys):
    reported.write_bytes(content)
    assert compared(tmp_path / "run", f"--out={tmp_path / 'out'}") == 2
    assert str(reported) in assert_one_line(capsys)
    assert not (tmp_path / "out").exists()


R2 = ("r2", "crop", "blur", "linear", "single")
WRONG = [None, [], {}, "x", "<script>", True, -1, 10**400, 1e308, float("nan"), float("inf"),
         [10**9], ["0"], {"0": None}, {"x": 1.0}]  # fmt: skip
PLACES = [(), ("provenance",), ("provenance", "lengths"), ("provenance", "views"),
          ("provenance", "views", "test"), ("adaptivity",), ("r2",), R2[:3], R2, (*R2, "0"),
          ("r2_std", *R2[1:]), ("r2_std", *R2[1:], "0"), ("r2_features", "crop"),
          ("retrieval", "crop", "mrr")]  # fmt: skip


FINE = [((*R2, "0"), -1), (("r2_features", "crop"), {})]


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_report_with_a_value_of_the_wrong_type_is_rejected(place, reported, tmp_path, capsys):
    good = json.loads(reported.read_text())
    for wrong in WRONG:
        if (place, wrong) in FINE:
            continue
        reported.write_text(json.dumps(changed(good, place, wrong)))
        assert compared(tmp_path / "run", f"--out={tmp_path / 'out'}") == 2, wrong
        assert_one_line(capsys)


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
    ids=("lengths", "groups", "step", "name", "terminal", "formula"),
)
def test_report_that_exceeds_the_limits_is_rejected(place, wrong, reported, tmp_path, capsys):
    reported.write_text(json.dumps(changed(json.loads(reported.read_text()), place, wrong)))
    assert compared(tmp_path / "run", f"--out={tmp_path / 'out'}") == 2
    assert_one_line(capsys)


def test_large_files_pipes_and_link_loops_are_not_read(reported, tmp_path, capsys):
    with open(reported, "wb") as opened:
        opened.truncate(1 << 40)  # a sparse file
    assert compared(reported, f"--out={tmp_path / 'out'}") == 2
    assert "bytes" in assert_one_line(capsys)
    reported.unlink()
    os.mkfifo(reported)
    assert compared(reported, f"--out={tmp_path / 'out'}") == 2
    assert "not a regular file" in assert_one_line(capsys)
    reported.unlink()
    reported.symlink_to(reported)
    assert compared(tmp_path / "run", f"--out={tmp_path / 'out'}") == 2
    assert_one_line(capsys)


def test_scripts_in_a_report_are_escaped(reported, tmp_path):
    script, link = "<script>alert(1)</script>", "[x](javascript:alert(1))"
    hostile_report = renamed(
        renamed(json.loads(reported.read_text()), "crop", script), "blur", link
    )
    hostile_report["provenance"]["method"] = '"><img src=x onerror=alert(1)>'
    reported.write_text(json.dumps(hostile_report))
    assert compared(tmp_path / "run", f"--out={tmp_path / 'out'}") == 0
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert page.count("<script") == 1 and "&lt;script&gt;" in page and "<img src=x" not in page
    text = re.sub(r"\\.", "", (tmp_path / "out" / "comparison.md").read_text())
    assert "script" in text and not any(wrong in text for wrong in ("<script", "<img", "](java"))


@hostile
def test_invalid_config_is_rejected(content, tmp_path, capsys):
    (tmp_path / "config.json").write_bytes(content)
    assert run(*QUICK, f"--workdir={tmp_path}") == 2
    assert str(tmp_path) in assert_one_line(capsys)
    assert run(*QUICK, "--mode=eval", f"--workdir={tmp_path}") == 2
    assert_one_line(capsys)


@hostile
def test_invalid_data_set_fingerprint_is_rejected(content, workdir, config):
    (workdir / "data.json").write_bytes(content)
    shutil.rmtree(workdir / "checkpoints")
    (workdir / "config.json").write_text(to_json(config))
    dataset = SimpleNamespace(splits={"train": SimpleNamespace(size=3, labels=None)})
    with (
        pytest.raises(UserError) as caught,
        acquire_workdir(epath.Path(workdir), config, dataset),
    ):
        pass
    assert str(workdir) in str(caught.value) and str(caught.value).isprintable()


@hostile
def test_invalid_list_of_saved_steps_is_empty(content, tmp_path):
    (tmp_path / "checkpoints.json").write_bytes(content)
    assert _read_saved_steps(epath.Path(tmp_path)) == []


@hostile
def test_invalid_lines_of_metrics_are_removed(content, tmp_path):
    file = epath.Path(tmp_path / "metrics.jsonl")
    file.write_bytes(b'{"step": 1}\n' + content + b'\n{"step": 2}\n')
    _remove_later_lines(file, 2, 2)
    assert file.read_text() == '{"step": 1}\n{"step": 2}\n'


@hostile
def test_invalid_lock_file_is_taken_over(content, tmp_path, monkeypatch):
    monkeypatch.setattr("contextssl_jax.run.lock.time.sleep", lambda seconds: None)
    (tmp_path / "lock.json").write_bytes(content)
    with Lock(epath.Path(tmp_path)) as lock:
        lock.check()


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
def test_curves_are_drawn_from_unusual_metrics(lines, tmp_path):
    (tmp_path / "metrics.jsonl").write_text(lines + '\n{"step": 5, "loss_contrastive": 1.0}\n')
    assert draw_curves(epath.Path(tmp_path), epath.Path(tmp_path / "curves.png"))


LOCKS = [{"process": value} for value in (None, [], "../../1", 10**400, 1e308, -1, {"a": 1})]
LOCKS += [{"process": os.getppid(), "started": value} for value in (None, [], 1)]
LOCKS += [{"host": "\n" * 9, "since": [[]]}]


@pytest.mark.parametrize("held", LOCKS, ids=range(len(LOCKS)))
def test_lock_with_invalid_values_is_taken_over(held, tmp_path):
    lock = {"host": "h", "process": 1, "since": "s", "machine": _machine_id(), "started": "1"}
    (tmp_path / "lock.json").write_text(json.dumps(lock | held))
    with Lock(epath.Path(tmp_path)) as own:
        own.check()


def test_run_continues_with_several_invalid_files(workdir, capsys, monkeypatch):
    monkeypatch.setattr("contextssl_jax.run.lock.time.sleep", lambda seconds: None)
    for name in ("checkpoints.json", "metrics.jsonl", "lock.json", "starts.jsonl"):
        (workdir / name).write_bytes(HOSTILE["garbage"] + b"\n" + HOSTILE["deep"])
    folder = workdir / "checkpoints"
    for name in ("²", "007", "-1", "1e3", "9" * 200):
        (folder / name).mkdir()
    assert run(*QUICK, f"--workdir={workdir}") == 0


def change_host_data(workdir: Path, number: int, **values: Any) -> None:
    """Change values in the host data of a checkpoint, by its number, and update its checksum."""
    file = workdir / "checkpoints" / str(number) / "host" / "metadata"
    host = json.loads(file.read_text()) | values
    del host["checksum"]
    file.write_text(json.dumps(host | {"checksum": _checksum(host)}))


@hostile
def test_invalid_host_data_is_damage(content, workdir, capsys):
    (workdir / "checkpoints" / "4" / "host" / "metadata").write_bytes(content)
    assert run(*QUICK, "--mode=eval", "--step=4", f"--workdir={workdir}") == 2
    assert "--step: checkpoint 4 is damaged" in assert_one_line(capsys)


@pytest.mark.parametrize("name", ("_METADATA", "manifest.ocdbt"))
@pytest.mark.parametrize("content", ("deep", "garbage", "list"))
def test_invalid_array_metadata_is_damage(name, content, workdir, capsys):
    (workdir / "checkpoints" / "4" / "state" / name).write_bytes(HOSTILE[content])
    assert run(*QUICK, "--mode=eval", "--step=4", f"--workdir={workdir}") == 2
    assert "--step: checkpoint 4 is damaged" in assert_one_line(capsys)


@pytest.mark.parametrize(
    "values",
    [
        {"batches": 10**9},
        {"batches": None},
        {"monitored_step": "now"},
        {"window": {"a": 1}},
        {"window": [{"loss": "high"}]},
        {"window": [[]]},
        {"window": [{}] * 1000},
    ],
)
def test_inconsistent_host_data_is_rejected(values, workdir, capsys):
    change_host_data(workdir, 4, **values)
    assert run(*QUICK, f"--workdir={workdir}") == 2
    assert "checkpoint 4 is not from this run" in assert_one_line(capsys)


def test_checkpoint_after_the_last_step_is_rejected(workdir, capsys):
    (workdir / "checkpoints" / "4").rename(workdir / "checkpoints" / "99")
    change_host_data(workdir, 99, step=99, batches=99)
    assert run(*QUICK, f"--workdir={workdir}") == 2
    assert "checkpoint 99 is not from this run" in assert_one_line(capsys)


@pytest.mark.parametrize("field", ("shape", "chunks"))
def test_array_with_a_huge_shape_is_not_allocated(field, workdir, capsys):
    folder = workdir / "checkpoints" / "4" / "state"
    store = ts.KvStore.open({"driver": "ocdbt", "base": f"file://{folder}/"}).result()
    key = next(k for k in store.list().result() if k.endswith(b"Conv_0.kernel/.zarray"))
    metadata = json.loads(store.read(key).result().value)
    metadata[field][0] = 10**9
    store.write(key, json.dumps(metadata).encode()).result()
    assert run(*QUICK, "--mode=eval", "--step=4", f"--workdir={workdir}") == 2
    assert f"has {field} [1000000000" in assert_one_line(capsys)


def test_links_among_checkpoints_do_not_modify_their_targets(workdir, tmp_path, capsys):
    """The target of a link is neither deleted nor moved."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("kept")
    folder = workdir / "checkpoints"
    for name in ("3.orbax-checkpoint-tmp-1", "3", "1"):
        (folder / name).symlink_to(outside)
    (folder / "6").symlink_to("6")
    status = run(*QUICK, f"--workdir={workdir}")
    assert (outside / "mine").read_text() == "kept"
    if status:
        assert status == 2
        assert_one_line(capsys)


SHARD = {"name": "train-0", "records": 1, "bytes": 1, "table_bytes": 1, "table_sha256": "x"}
SHARDS = {"side": 8, "splits": {"train": [SHARD], "test": [SHARD]}}


@pytest.mark.parametrize(
    "place, wrong",
    [
        *((("splits", "train", 0, "name"), name) for name in ("../x", "/x", "..", "a/b", "", 1)),
        (("splits", "train", 0, "records"), "0:1]/etc/x["),
        (("splits", "test", 0, "table_sha256"), None),
        (("splits", "train"), []),
        (("splits",), None),
        (("splits",), {"train": [SHARD]}),
        (("side",), "8"),
    ],
)
def test_shard_index_with_invalid_names_or_values_is_rejected(place, wrong, tmp_path):
    check_index(tmp_path, SHARDS)
    with pytest.raises(UserError, match="is damaged"):
        check_index(tmp_path, changed(SHARDS, place, wrong))


@hostile
def test_invalid_shard_index_is_rejected(content, tmp_path):
    (tmp_path / "index").write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        read_json(tmp_path / "index")
