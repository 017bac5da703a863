"""The command line and the config: read, checked, and told in one line when wrong."""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from contextssl_jax.errors import UserError


class Command(NamedTuple):
    """What the command line asks for."""

    config: ConfigDict  # locked
    workdir: str
    mode: str
    step: int | None  # of a checkpoint
    deterministic: bool  # the same bits from the same devices
    argv: tuple[str, ...]  # all that was typed
    devices: int | None  # of a plan; see planning.plan
    utilisation: float | None
    out: str | None


def parse_command_line(argv: Sequence[str], modes: Sequence[str]) -> Command:
    """Reads --config, --config.x=y, --workdir, --mode, --step, --deterministic, and a plan's.

    Args:
      argv: the command line, the program's name first.
      modes: possible modes; the first is the default.

    Returns:
      The command; its workdir is by default runs/<config file's name>.

    Raises:
      UserError: an unknown flag or option, a value of the wrong type, or no such config file.
    """
    path = _config_path(argv)
    _check_options(argv, _load(path))
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file(
        "config", flag_values=values, lock_config=True, sys_argv=list(argv)
    )
    flags.DEFINE_string("workdir", None, "where the run lives", flag_values=values)
    flags.DEFINE_enum("mode", modes[0], list(modes), "what to do", flag_values=values)
    flags.DEFINE_integer("step", None, "of a checkpoint", lower_bound=0, flag_values=values)
    flags.DEFINE_integer("devices", None, "of a plan", lower_bound=1, flag_values=values)
    flags.DEFINE_float(
        "utilisation",
        None,
        "of a plan's chips",
        lower_bound=0.01,
        upper_bound=1,
        flag_values=values,
    )
    flags.DEFINE_string("out", None, "JSON file of a plan", flag_values=values)
    flags.DEFINE_bool("deterministic", False, "the same bits, slower", flag_values=values)
    try:
        extra = values(list(argv))[1:]
    except flags.Error as error:
        raise UserError(str(error).splitlines()[0]) from error
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(f"--config: {str(error).splitlines()[0]}") from error
    if extra:
        raise UserError(f"unknown argument {extra[0]!r}; options are written --config.name=value")
    _check_counts(config.value)
    name = path.rsplit("/", 1)[-1].replace(".py:", "_").removesuffix(".py")
    return Command(
        config=config.value,
        workdir=values.workdir or f"runs/{name}",
        mode=values.mode,
        step=values.step,
        deterministic=values.deterministic,
        argv=tuple(argv),
        devices=values.devices,
        utilisation=values.utilisation,
        out=values.out,
    )


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every option as (dotted name, plain value), sequences as lists."""
    for key, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, list(value) if isinstance(value, tuple | list) else value


def to_json(config: ConfigDict) -> str:
    """Returns the config as indented JSON, options in their order."""
    return json.dumps(config.to_dict(), indent=2, default=list) + "\n"


def _check_counts(config: ConfigDict) -> None:
    """Raises UserError for a count that is too small to mean anything."""
    values = dict(flatten(config))
    zero = ("seed", "crop.padding", "train.warmup_steps", "monitor.every")
    smallest = dict.fromkeys((*zero, "eval.every", "eval.seed", "objects3d.pool"), 0)
    smallest |= {"data.pairs": 2, "eval.retrieval.views": 5}
    for name, value in values.items():
        least = smallest.get(name, 1)
        if isinstance(value, int) and not isinstance(value, bool) and value < least:
            raise UserError(f"--config.{name}: must be at least {least}, not {value}")


def _config_path(argv: Sequence[str]) -> str:
    for i, argument in enumerate(argv):
        flag, _, value = argument.lstrip("-").partition("=")
        if flag == "config" and argument.startswith("-"):
            return value or (argv[i + 1] if i + 1 < len(argv) else "")
    raise UserError("--config: name a config file, such as --config=configs/cifar10_small.py")


def _load(path: str) -> ConfigDict:
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file(
        "config", flag_values=values, sys_argv=["", f"--config={path}"]
    )
    try:
        values(["", f"--config={path}"])
        return holder.value.copy_and_resolve_references()
    except OSError as error:
        raise UserError(f"--config: cannot read {path!r}; is it a config file?") from error
    except flags.Error as error:  # ends with the traceback of what the file raised
        reason = str(error).splitlines()[-1].partition(": ")[2]
        raise UserError(f"--config: {path}: {reason}") from error
    except AttributeError as error:
        if "get_config" not in str(error):  # a mistake within the file
            raise
        raise UserError(f"--config: {path} has no get_config; is it a part of others?") from error


def _check_options(argv: Sequence[str], config: ConfigDict) -> None:
    """Raises UserError for the first --config.name that is no option of the config."""
    known = [name for name, _ in flatten(config)]
    for argument in argv[1:]:
        name = argument.lstrip("-").partition("=")[0]
        if not argument.startswith("-") or not name.startswith("config."):
            continue
        name = name.removeprefix("config.")
        if name not in known:
            same_leaf = [k for k in known if k.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
            same_leaf.sort(key=lambda option: option.count("."))
            near = same_leaf or difflib.get_close_matches(name, known, 1, 0.0)
            raise UserError(f"--config.{name}: no such option; the nearest is --config.{near[0]}")
