"""Sweeps as Python files: variants (a config with options changed) times seeds."""

import hashlib
import importlib.util
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contextssl_jax.errors import UserError, expand_home, lookup
from contextssl_jax.evaluation.parameter_probes import PROBES
from contextssl_jax.reports.paper import PAPER_BY_NAME
from contextssl_jax.storage.safe_json import truncate

_MAX_LABEL = 60  # characters of a label
_PLAIN = re.compile(
    r"(?!sweep\.)[a-z0-9._=+ -]+", re.IGNORECASE
)  # labels that are valid folder names


@dataclass(frozen=True)
class Variant:
    """One setting.

    Attributes:
      label: its name on pages.
      config: path of the config file.
      overrides: values by option, such as {"mask.probability": 0.5}.
      value: its value on the sweep's axis.
    """

    label: str
    config: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    value: float | None = None

    @property
    def folder(self) -> str:
        """Return the name of its folder: the label if it is valid, else one derived from it."""
        if _PLAIN.fullmatch(self.label):
            return self.label.replace(" ", "_")
        readable = re.sub(r"[^A-Za-z0-9.=+-]+", "_", self.label).strip("_.-")[:40]
        return f"{readable or 'point'}-{hashlib.sha256(self.label.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Sweep:
    """Variants times seeds, and how they are displayed.

    Attributes:
      title: of the page.
      points: the variants, in their order on pages.
      seeds: of each variant, unless the command line names others.
      axis: name of the variants' `value`, the x axis of the figure.
      overrides: values by option for all variants; a variant's own take precedence.
      probes: the displayed probe by group; for other groups "linear", or the paper's.
      paper: the paper's table displayed beside, a name in reports.paper.PAPER_BY_NAME.
      official: R² as in the paper, of actions between two views by the official definition; else
        of parameters of single views, the mean over entries.
    """

    title: str
    points: tuple[Variant, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    axis: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    probes: Mapping[str, str] = field(default_factory=dict)
    paper: str | None = None
    official: bool = False


def load_sweep(path: str) -> Sweep:
    """Execute a sweep file, which is trusted as a config is, and return its validated sweep.

    Raises:
      UserError: the file does not exist, or its sweep is invalid.
    """
    path = expand_home(path, "--sweep")
    if not Path(path).is_file():
        raise UserError(f"--sweep: cannot read {path!r}. Name a sweep file")
    try:
        spec = importlib.util.spec_from_file_location("sweep_file", path)
        assert spec and spec.loader, "its name does not end in .py"
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sweep = module.get_sweep()
    except Exception as error:
        reason = truncate(f"{type(error).__name__}: {error}")
        raise UserError(f"--sweep: {path} cannot be run ({reason})") from error
    try:
        check_sweep(sweep)
    except UserError as error:
        raise UserError(f"--sweep: {path}: {error}") from error
    checked: Sweep = sweep
    return checked


def check_sweep(sweep: Any) -> None:
    """Validate a sweep without its configs.

    Raises:
      UserError: the sweep is invalid.
    """
    if not isinstance(sweep, Sweep):
        raise UserError("get_sweep() returns no contextssl_jax.sweeps.Sweep")
    _check_name("title", sweep.title)
    if sweep.axis is not None:
        _check_name("axis", sweep.axis)
    if not isinstance(sweep.points, tuple) or not sweep.points:
        raise UserError("points: name at least one, in a tuple")
    folders: dict[str, str] = {}
    for point in sweep.points:
        _check_point(point, sweep.axis)
        folder = point.folder.casefold()  # some file systems ignore case
        if folder in folders:
            both = f"{folders[folder]!r} and {point.label!r}"
            raise UserError(f"points: the labels {both} have the same folder. Rename one")
        folders[folder] = point.label
    check_seeds("seeds", sweep.seeds)
    _check_overrides("overrides", sweep.overrides)
    for group, probe in sweep.probes.items():
        lookup(dict.fromkeys(PROBES), probe, f"probes: of {truncate(group)}")
    if sweep.paper is not None:
        lookup(PAPER_BY_NAME, sweep.paper, "paper")


def check_seeds(name: str, seeds: Any) -> None:
    """Raise UserError unless they are distinct integers of at least 0, and at least one."""
    valid = isinstance(seeds, Sequence) and all(type(s) is int and s >= 0 for s in seeds)
    if not valid or not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"{name}: name different whole numbers from 0 up, not {truncate(seeds)}")


def as_text(value: Any) -> str:
    """Return an option's value as on a command line."""
    return value if isinstance(value, str) else repr(tuple(value) if _listed(value) else value)


def _check_point(point: Any, axis: str | None) -> None:
    if not isinstance(point, Variant):
        raise UserError(f"points: {truncate(point)} is no contextssl_jax.sweeps.Variant")
    _check_name("points: label", point.label)
    if not isinstance(point.config, str):
        raise UserError(
            f"{point.label!r}: config: name a config file, not {truncate(point.config)}"
        )
    _check_overrides(f"{point.label!r}: overrides", point.overrides)
    value = point.value
    if axis is None and value is not None:
        raise UserError(f"{point.label!r}: has a value, but the sweep no axis. Name the axis")
    if axis is not None and not (type(value) in (int, float) and math.isfinite(value or 0)):
        raise UserError(
            f"{point.label!r}: value: the sweep has an axis. Give each variant a number"
        )


def _check_name(name: str, value: Any) -> None:
    # Matplotlib parses text between dollars as a formula, and omits labels that start with "_".
    valid = isinstance(value, str) and value.isprintable() and "$" not in value
    if not valid or not value[:1].isalnum() or len(value) > _MAX_LABEL or value != value.strip():
        raise UserError(
            f"{name}: {truncate(value)!r} is none. Use at most {_MAX_LABEL} printable characters"
            " without $, a letter or digit first"
        )


def _check_overrides(name: str, overrides: Any) -> None:
    if not isinstance(overrides, Mapping):
        raise UserError(f"{name}: name values by option, such as {{'train.steps': 100}}")
    for option, value in overrides.items():
        if not isinstance(option, str) or not re.fullmatch(r"[\w.]+", option):
            raise UserError(f"{name}: {truncate(option)!r} is no option")
        if option == "seed":
            raise UserError(f"{name}: seed: cannot be overridden. Use the sweep's seeds")
        if value is None:
            raise UserError(
                f"{name}: {option}: None cannot be set. Leave it out, or set it in a config"
            )
        if not isinstance(value, str | bool | int | float) and not _listed(value):
            raise UserError(f"{name}: {option}: {truncate(value)!r} is no value of an option")


def _listed(value: Any) -> bool:
    return isinstance(value, tuple | list)
