"""Parsing and validation of the command line and the config."""

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from contextssl_jax.config_file import load_config, split_config
from contextssl_jax.errors import UserError
from contextssl_jax.options import check_options, declarations, range_error

RENAMED = {"nuisances": "unconditioned_transforms"}  # options of earlier versions


class Command(NamedTuple):
    """The parsed command line."""

    config: ConfigDict  # locked
    workdir: str
    mode: str
    step: int | None  # checkpoint to evaluate
    deterministic: bool  # bit-identical results on the same devices
    compilation_cache: bool  # keep compiled programs on disk
    profile: str | None  # steps to trace, START:STOP
    argv: tuple[str, ...]  # the unparsed command line
    devices: int | None  # number of devices in a plan; see planning.plan
    utilisation: float | None
    out: str | None
    chip: str | None  # chip to compile for; see planning.targets


def parse_command_line(argv: Sequence[str], modes: Sequence[str]) -> Command:
    """Parse --config, --config.x=y, --workdir, --mode, --step, --deterministic,
    --compilation_cache, --profile and plan flags.

    Args:
      argv: the command line, including the program's name.
      modes: valid values of --mode; the first is the default.

    Returns:
      The command. The default of its workdir is runs/<name of the config>.

    Raises:
      UserError: a flag or option is unknown, a value has the wrong type or is outside its range,
        or there is no such config.
    """
    path, others = split_config(argv)
    defaults = load_config(path)
    _check_names(others, defaults)
    arguments = ["", f"--config={path}", *_quote_tuples(others, defaults)]
    values = define_flags(modes)
    config = config_flags.DEFINE_config_file(
        "config", flag_values=values, lock_config=True, sys_argv=arguments
    )
    try:
        extra = values(arguments)[1:]
    except flags.Error as error:
        raise _flag_error(str(error).splitlines()[0], defaults) from error
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(f"--config: {str(error).splitlines()[0]}") from error
    if extra:
        raise UserError(f"{extra[0]}: unknown argument. Write options as --config.name=value.")
    check_options(config.value)
    name = path.rsplit("/", 1)[-1].replace(".py:", "_").removesuffix(".py")
    return Command(
        config=config.value,
        workdir=values.workdir or f"runs/{name}",
        mode=values.mode,
        step=values.step,
        deterministic=values.deterministic,
        compilation_cache=values.compilation_cache,
        profile=values.profile,
        argv=tuple(argv),
        devices=values.devices,
        utilisation=values.utilisation,
        out=values.out,
        chip=values.chip,
    )


def define_flags(modes: Sequence[str]) -> flags.FlagValues:
    """Return the flags of the command beside --config; the first mode is the default."""
    values = flags.FlagValues()
    flags.DEFINE_string(
        "workdir", None, "folder of the run; by default runs/NAME", flag_values=values
    )
    flags.DEFINE_enum("mode", modes[0], list(modes), "what to run", flag_values=values)
    flags.DEFINE_integer(
        "step",
        None,
        "checkpoint to evaluate; by default the newest",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "devices", None, "number of devices in a plan", lower_bound=1, flag_values=values
    )
    flags.DEFINE_float(
        "utilisation",
        None,
        "fraction of the chips' peak that a plan assumes",
        lower_bound=0.01,
        upper_bound=1,
        flag_values=values,
    )
    flags.DEFINE_string("out", None, "JSON file to write a plan to", flag_values=values)
    flags.DEFINE_string(
        "chip",
        None,
        "h100, v5e, v5p or v6e: add the estimate of its compiler to a plan, in minutes",
        flag_values=values,
    )
    flags.DEFINE_bool("deterministic", False, "bit-identical results, slower", flag_values=values)
    flags.DEFINE_bool(
        "compilation_cache",
        True,
        "keep compiled programs on disk; --nocompilation_cache does not",
        flag_values=values,
    )
    flags.DEFINE_string(
        "profile", None, "START:STOP, steps of training to trace", flag_values=values
    )
    return values


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every option as (dotted name, value), with sequences as lists."""
    for key, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, list(value) if isinstance(value, tuple | list) else value


def to_json(config: ConfigDict) -> str:
    """Return the config as indented JSON, with the options in their order."""
    return json.dumps(config.to_dict(), indent=2, default=list) + "\n"


def _quote_tuples(given: Sequence[str], config: ConfigDict) -> list[str]:
    """Return the arguments with tuples as Python literals, ('crop', 'blur') for crop,blur."""
    tuples = {name for name, value in flatten(config) if isinstance(value, list)}
    arguments = list(given)
    for i, argument in enumerate(arguments):
        flag, equals, text = argument.partition("=")
        if not argument.startswith("-") or flag.lstrip("-").removeprefix("config.") not in tuples:
            continue
        if equals:
            arguments[i] = f"{flag}={_as_literal(text)}"
        elif i + 1 < len(arguments):
            arguments[i + 1] = _as_literal(arguments[i + 1])
    return arguments


def _as_literal(text: str) -> str:
    """Return a list of words without quotes as a Python tuple, and any other text unchanged."""
    words = [word.strip() for word in text.strip("()[] ").split(",")]
    words = [word for word in words if word]
    is_list = "," in text or text[:1] in ("(", "[")
    if is_list and not any(map(_is_literal, words)):
        return repr(tuple(words))
    return text


def _is_literal(word: str) -> bool:
    """Return whether a word is a number, or has quotes or brackets."""
    return bool(re.search(r"""^[-+.\d]|['"()\[\]]""", word))


def _flag_error(message: str, config: ConfigDict) -> UserError:
    """Return the error of a flag; of an option that is not of its type, with the option's range."""
    wrong = re.match(r"flag --config\.([\w.]+)=(.*?): ", message)
    for name, option, _ in declarations(config):
        if wrong and wrong.group(1) == name:
            return range_error(name, option, wrong.group(2))
    return UserError(message)


def _check_names(arguments: Sequence[str], config: ConfigDict) -> None:
    """Raise UserError for the first --config.name that is not an option of the config."""
    known = [name for name, _ in flatten(config)]
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0]
        if not argument.startswith("-") or not name.startswith("config."):
            continue
        name = name.removeprefix("config.")
        if name in RENAMED and name not in known:
            raise UserError(f"--config.{name}: renamed. Use --config.{RENAMED[name]} instead.")
        if name not in known:
            same_leaf = [k for k in known if k.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
            same_leaf.sort(key=lambda option: option.count("."))
            near = same_leaf or difflib.get_close_matches(name, known, 1, 0.0)
            raise UserError(f"--config.{name}: no such option. Did you mean --config.{near[0]}?")
