"""--help lists every mode, flag and config with a line, without importing JAX."""

import subprocess
import sys
from pathlib import Path

from tiny import run

from configs import base
from contextssl_jax import help as command_help
from contextssl_jax.config import flatten
from contextssl_jax.configs import list_configs
from contextssl_jax.main import MODES


def test_help_lists_modes_flags_configs_and_main_options(capsys):
    assert run("--help") == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    described = {line[0]: line[1] for line in lines if len(line) == 2}
    for mode, function in MODES.items():
        assert described[f"--mode={mode}"] == function.__doc__.splitlines()[0]
    for flag in ("config", "workdir", "step", "devices", "out", "deterministic"):
        assert described[f"--{flag}"]
    options = [name for name in described if name.startswith("--config.") and name.islower()]
    assert len(options) > 8
    assert {name.removeprefix("--config.") for name in options} <= dict(
        flatten(base.get_config())
    ).keys()
    files = {
        path.stem for path in Path("configs").glob("*.py") if "def get_config(" in path.read_text()
    }
    assert files == list_configs().keys() <= described.keys()
    assert described["quickstart"] == Path("configs/quickstart.py").read_text()[3:].splitlines()[0]


def test_help_of_a_config_has_its_options_with_values_and_ranges(capsys):
    assert run("--config=simclr_cifar10:small", "--help") == 0
    text = capsys.readouterr().out
    assert text.startswith("SimCLR on CIFAR-10 with crop and blur")
    assert " 9000 (an integer from 1 to" in text.partition("train.steps")[2].splitlines()[0]
    assert text.count("\n  ") >= len(dict(flatten(base.get_config())))


def test_help_of_an_unknown_config_is_one_line(capsys):
    assert run("--config=quickstrat", "--help") == 2
    assert "Did you mean quickstart" in capsys.readouterr().err


def test_help_does_not_import_jax():
    code = (
        "import sys; from contextssl_jax.main import main; main(['main', '--help']);"
        "sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0
    assert command_help.asks_for_help(["main", "--config=debug", "-h"])
