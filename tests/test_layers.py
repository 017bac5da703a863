"""Imports between the package's rooms point one way, by the contracts in pyproject.toml."""

from pathlib import Path

from importlinter.cli import lint_imports

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def test_imports_point_one_way_and_no_method_imports_another(capsys):
    failed = lint_imports(config_filename=str(PYPROJECT), no_cache=True)
    assert not failed, capsys.readouterr().out
