"""Files of strangers are data: nothing in them is run, and what is wrong in them is one line."""

import ast
from pathlib import Path

import pytest

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
