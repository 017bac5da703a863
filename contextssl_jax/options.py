"""Declaration of options: default, range, and whether it may change when a run is resumed.

A config file declares an option where it states its default:

    config.loss = loss = Options()
    loss.temperature = number(0.1, above=0)

`loss.temperature` is then the plain value 0.1; the declaration is stored beside it, and
`check_options` validates whatever value the option has in the end.
"""

import enum
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict, config_dict

from contextssl_jax.errors import UserError

MAX_COUNT = 2**31 - 1  # the largest int32, the type of step counters on devices
_MAX_SHOWN = 80  # characters of a value in a message


class Resume(enum.Enum):
    """Whether an option may change when a run is resumed."""

    FIXED = "no"
    FREE = "yes"
    EXTENDS = "not below the steps already taken"
    SAME_GRADIENT = "if the gradient remains that of the whole batch"


FREE, EXTENDS, SAME_GRADIENT = Resume.FREE, Resume.EXTENDS, Resume.SAME_GRADIENT


@dataclass(frozen=True)
class Option:
    """The declaration of an option.

    Attributes:
      default: its value if nothing sets it. None makes the option optional.
      kind: the type of its values.
      expected: its valid values in words, after "must be".
      accepts: returns whether a value of that type is valid.
      resume: whether it may change when a run is resumed.
      before: the value that a run saved without this option has, since its program did not have
        the option; None if there is no such value.
    """

    default: Any
    kind: type
    expected: str
    accepts: Callable[[Any], bool]
    resume: Resume = Resume.FIXED
    before: Any = None

    def is_valid(self, value: Any) -> bool:
        """Return whether the option may have the value."""
        if value is None:
            return self.default is None
        return _has_type(value, self.kind) and self.accepts(value)


class Options(ConfigDict):
    """A ConfigDict whose options may be declared: `options.name = integer(5, 1)`.

    Copies keep the declarations; `ConfigDict(options)` drops those of the outermost level.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        object.__setattr__(self, "_declared", {})
        super().__init__(*args, **kwargs)

    def __setitem__(self, key: str, value: Any) -> None:
        if isinstance(value, Option):
            self._declared[key] = value
            missing = value.default is None
            value = config_dict.placeholder(value.kind) if missing else value.default
        super().__setitem__(key, value)

    def copy_and_resolve_references(self, visit_map: dict[int, Any] | None = None) -> "Options":
        """See ConfigDict."""
        copy: Options = super().copy_and_resolve_references(visit_map)
        copy._declared.update(self._declared)
        return copy

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._declared.update(state["_declared"])


def declarations(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Option, Any]]:
    """Yield every declared option as (dotted name, declaration, value).

    Raises:
      UserError: a section that is no Options has a declaration.
    """
    declared = config._declared if isinstance(config, Options) else {}
    for key, value in config.items():
        if isinstance(value, Option):
            raise UserError(
                f"--config.{prefix}{key}: is declared in a ConfigDict. Make its section"
                " a contextssl_jax.options.Options."
            )
        if isinstance(value, ConfigDict):
            yield from declarations(value, f"{prefix}{key}.")
        elif key in declared:
            yield prefix + key, declared[key], value


def check_options(config: ConfigDict) -> None:
    """Check the value of every declared option.

    Raises:
      UserError: a value is outside its option's range. The message names the option, the range,
        the value and the default.
    """
    for name, option, value in declarations(config):
        if not option.is_valid(value):
            raise range_error(name, option, value)


def range_error(name: str, option: Option, value: Any) -> UserError:
    """Return the error of a value outside an option's range."""
    advice = "leave it unset" if option.default is None else f"use {option.default!r}"
    return UserError(
        f"--config.{name}: must be {option.expected}, not {_show(value)}. Choose such a value, or"
        f" {advice}, the default."
    )


def integer(
    default: int | None,
    low: int,
    high: int = MAX_COUNT,
    *,
    zero: bool = False,
    odd: bool = False,
    **facts: Any,
) -> Option:
    """Declare an integer in [low, high].

    Args:
      default: see Option.
      low: the smallest value.
      high: the largest value.
      zero: whether 0 is valid as well.
      odd: whether even values are invalid.
      **facts: `resume` and `before` of Option, as in all functions below.
    """
    words = f"{'0 or ' if zero else ''}an {'odd ' if odd else ''}integer from {low} to {high}"
    return Option(
        default,
        int,
        words,
        lambda x: (zero and x == 0) or (low <= x <= high and not (odd and x % 2 == 0)),
        **facts,
    )


def number(
    default: float | None,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    above: float | None = None,
    below: float | None = None,
    **facts: Any,
) -> Option:
    """Declare a finite number in [low, high], greater than `above` and less than `below`."""
    words, accepts = _interval(low, high, above, below)
    return Option(default, float, f"a finite number{words}", accepts, **facts)


def probability(default: float | None, **facts: Any) -> Option:
    """Declare a number in [0, 1]."""
    return number(default, 0, 1, **facts)


def switch(default: bool, **facts: Any) -> Option:
    """Declare True or False."""
    return Option(default, bool, "True or False", lambda x: True, **facts)


def choice(default: str | None, *others: str, **facts: Any) -> Option:
    """Declare one of several names."""
    names = others if default is None else (default, *others)
    words = f"one of {', '.join(map(repr, names))}"
    return Option(default, str, words, lambda x: x in names, **facts)


def text(default: str | None, **facts: Any) -> Option:
    """Declare a text that is not empty, such as a name or a path."""
    return Option(default, str, "a text that is not empty", lambda x: bool(x.strip()), **facts)


def names(default: tuple[str, ...], least: int = 0, **facts: Any) -> Option:
    """Declare different names, at least `least` of them."""

    def accepts(values: Any) -> bool:
        valid = all(isinstance(x, str) and x.strip() for x in values)
        return valid and len(values) >= least and len(set(values)) == len(values)

    return Option(default, tuple, f"different names{_at_least(least)}", accepts, **facts)


def integers(
    default: tuple[int, ...],
    low: int,
    high: int = MAX_COUNT,
    *,
    least: int = 0,
    length: int | None = None,
    even: bool = False,
    **facts: Any,
) -> Option:
    """Declare at least `least` or exactly `length` integers in [low, high], even if `even`."""
    words = f"{'even ' if even else ''}integers from {low} to {high}"
    words = f"{length} {words}" if length else words + _at_least(least)

    def accepts(values: Any) -> bool:
        valid = all(_has_type(x, int) and low <= x <= high for x in values)
        enough = len(values) == length if length else len(values) >= least
        return valid and enough and not (even and any(x % 2 for x in values))

    return Option(default, tuple, words, accepts, **facts)


def numbers(
    default: tuple[float, ...],
    low: float = -math.inf,
    high: float = math.inf,
    *,
    above: float | None = None,
    ascending: bool = False,
    **facts: Any,
) -> Option:
    """Declare as many finite numbers as the default has, in an interval; see `number`."""
    interval, inside = _interval(low, high, above, None)
    words = f"{len(default)} finite numbers{interval}{', in ascending order' if ascending else ''}"

    def accepts(values: Any) -> bool:
        valid = all(_has_type(x, float) and inside(x) for x in values)
        ordered = not ascending or (valid and list(values) == sorted(values))
        return valid and ordered and len(values) == len(default)

    return Option(default, tuple, words, accepts, **facts)


def _interval(
    low: float, high: float, above: float | None, below: float | None
) -> tuple[str, Callable[[float], bool]]:
    """Return the words of an interval, and whether a number is finite and inside."""
    words = []
    if above is not None:
        words.append(f"above {above}")
    if low > -math.inf:
        words.append(f"at least {low}")
    if below is not None:
        words.append(f"below {below}")
    if high < math.inf:
        words.append(f"at most {high}")

    def inside(x: float) -> bool:
        if not abs(x) <= sys.float_info.max:  # also if NaN, or an integer beyond floats
            return False
        return low <= x <= high and (above is None or x > above) and (below is None or x < below)

    return " " + " and ".join(words) if words else "", inside


def _at_least(least: int) -> str:
    return f", at least {least} of them" if least else ""


def _has_type(value: Any, kind: type) -> bool:
    if kind is tuple:
        return isinstance(value, tuple | list)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _show(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}…"
