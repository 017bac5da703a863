"""--help: the modes, flags, main options and configs of the command; or all options of a config."""

import ast
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from contextssl_jax.config import define_flags, flatten
from contextssl_jax.config_file import load_config, split_config
from contextssl_jax.configs import CONFIG_FOLDER, list_configs
from contextssl_jax.options import declarations

_USAGE = (
    "python -m contextssl_jax.main --config=NAME [--config.OPTION=VALUE ...] [--FLAG=VALUE ...]"
)
# The options that are changed most often, which every config has.
_MAIN_OPTIONS = {
    "seed": "decides everything random",
    "environments": "groups whose actions a context shows, such as crop,blur,crop+blur,none",
    "data.dir": "folder of prepared data sets; else the variable TFDS_DATA_DIR",
    "data.contexts": "contexts in a batch; a multiple of the number of devices",
    "train.steps": "steps of the whole run; a larger number extends a run",
    "train.learning_rate": "peak of the schedule",
    "train.init_from": "workdir or file whose weights a new run starts from",
    "checkpoint.every": "steps between checkpoints",
    "log.every": "steps between lines of metrics",
    "log.wandb": "True writes to Weights & Biases too",
    "monitor.every": "steps between tests of adaptation on held-out data; 0 is never",
    "eval.every": "steps between reports; 0 is never",
}


def asks_for_help(argv: Sequence[str]) -> bool:
    """Return whether a command line has --help."""
    return any(argument in ("--help", "-help", "-h") for argument in argv[1:])


def help_text(argv: Sequence[str], modes: Mapping[str, Callable[..., Any]]) -> str:
    """Return the help of the command; if the command line has --config, that of the config.

    Args:
      argv: the command line, including the program's name.
      modes: functions by mode; the first line of a docstring describes the mode.

    Raises:
      UserError: the config cannot be loaded.
    """
    if any(argument.lstrip("-").partition("=")[0] == "config" for argument in argv[1:]):
        return _config_help(split_config(argv)[0])
    flags = define_flags(tuple(modes))
    config = {
        "--config": "name of a config below, or path of a config file of your own, ending in .py",
        "--config.OPTION": "value of an option of the config",
    }
    descriptions = {f"--mode={name}": _first_line(mode) for name, mode in modes.items()}
    return "\n\n".join(
        [
            f"usage: {_USAGE}",
            "Train the model of a config, or evaluate it. The same command again resumes the run.",
            _section("Modes (by default the first)", descriptions),
            _section("Flags", config | {f"--{name}": str(flags[name].help) for name in flags}),
            _section(
                "Main options (--config=NAME --help: all, with their values)",
                {f"--config.{name}": line for name, line in _MAIN_OPTIONS.items()},
            ),
            _section("Configs", list_configs()),
        ]
    )


def _config_help(path: str) -> str:
    config = load_config(path)
    docstring = ast.get_docstring(ast.parse(Path(path.partition(":")[0]).read_text()))
    title = f"Options, with their values in this config; {CONFIG_FOLDER / 'base.py'} explains each"
    return "\n\n".join([docstring or path, _section(title, _options(config))])


def _options(config: ConfigDict) -> dict[str, str]:
    """Return the value and, where it is declared, the range of every option."""
    ranges = {name: f" ({option.expected})" for name, option, _ in declarations(config)}
    return {name: f"{_show(v)}{ranges.get(name, '')}" for name, v in flatten(config)}


def _show(value: Any) -> str:
    return ",".join(map(str, value)) or "()" if isinstance(value, list) else str(value)


def _first_line(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]


def _section(title: str, lines: Mapping[str, str]) -> str:
    width = max(map(len, lines))
    return "\n".join([f"{title}:", *(f"  {name:{width}}  {line}" for name, line in lines.items())])
