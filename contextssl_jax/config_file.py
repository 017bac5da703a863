"""The config file of a command line: found by name or path, and executed."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from contextssl_jax.configs import CONFIG_FOLDER, list_configs
from contextssl_jax.errors import UserError, expand_home


def split_config(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Return the config file of a command line, and the other arguments.

    Args:
      argv: the command line, including the program's name. Its --config is the name of a config
        that comes with the package, or a path, which ends in .py or has a slash; after a colon, it
        has the argument of the file's `get_config`.

    Returns:
      The path, with the argument of `get_config`, and the rest of the command line.

    Raises:
      UserError: --config is missing, or no config has the name.
    """
    arguments = list(argv[1:])
    for i, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag not in ("--config", "-config"):
            continue
        rest = i + 1 if equals else i + 2
        value = value if equals else "".join(arguments[i + 1 : rest])
        if value:
            return _resolve(value), arguments[:i] + arguments[rest:]
    raise UserError(
        "--config: missing. Specify a config, such as --config=quickstart; --help lists them."
    )


def load_config(path: str) -> ConfigDict:
    """Execute a config file and return its options.

    Args:
      path: from `split_config`.

    Raises:
      UserError: the file cannot be read, has no `get_config`, or rejects the argument.
    """
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file(
        "config", flag_values=values, sys_argv=["", f"--config={path}"]
    )
    try:
        values(["", f"--config={path}"])
        return holder.value.copy_and_resolve_references()
    except OSError as error:
        raise UserError(f"--config: cannot read {path!r}. {_advice(path)}") from error
    except flags.Error as error:  # its message ends with the traceback of the file's error
        reason = str(error).splitlines()[-1].partition(": ")[2]
        raise UserError(f"--config: {path}: {reason}") from error
    except AttributeError as error:
        if "get_config" not in str(error):  # an error within the file
            raise
        raise UserError(
            f"--config: {path} has no get_config function. Specify a complete config file, not"
            " one that other configs include."
        ) from error


def _resolve(value: str) -> str:
    name, colon, argument = value.partition(":")
    if name.endswith(".py") or "/" in name:
        return expand_home(value, "--config")
    known = list_configs()
    if name not in known:
        near = difflib.get_close_matches(name, known, 3, 0.4)
        nearest = f" Did you mean {' or '.join(near)}?" if near else ""
        raise UserError(
            f"--config: no config is named {name!r}.{nearest} --help lists all names; the path of a"
            " file of your own ends in .py."
        )
    return f"{CONFIG_FOLDER / name}.py{colon}{argument}"


def _advice(path: str) -> str:
    """Return what to do about a file that does not exist."""
    name = Path(path.partition(":")[0]).stem
    if name in list_configs():
        return f"Check the path, or use --config={name}, which comes with the package."
    return "Check the path."
