"""Imports between the package's rooms point one way, by the contracts in pyproject.toml."""

import subprocess
import sys
from pathlib import Path

LINT = (
    "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
)


def test_imports_point_one_way_and_no_method_imports_another():
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", LINT], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
