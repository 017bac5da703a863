"""Stored reports: reading report.json and validating it as untrusted input."""

from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from contextssl_jax.errors import UserError
from contextssl_jax.evaluation.evaluators import all_metrics
from contextssl_jax.evaluation.evaluators.base import LENGTH, Level
from contextssl_jax.storage.safe_json import read_json, truncate

REPORT = "report.json"
_MAX_ABS = 1e15  # of a number
_MAX_ENTRIES, _MAX_NAME = 64, 200  # entries of a level, characters of a name
_NAMES = ("method", "data", "config", "context_split")
_COUNTS = ("step", "draws")
# What evaluations did before these settings existed.
_BEFORE = {"draws_of": "contexts", "context_mask": "causal", "rounding": 0.0}


def report_folder(workdir: epath.Path, step: int) -> epath.Path:
    """Return the folder of a step's report."""
    return workdir / "eval" / str(step)


def report_uses_context(provenance: Mapping[str, Any]) -> bool:
    """Return whether a report is of a method that uses contexts, by the report's provenance."""
    return any(provenance["lengths"])


def read_report(file: epath.Path) -> dict[str, Any]:
    """Read and validate a report.json.

    Raises:
      UserError: it cannot be read, or is no report of an evaluation.
    """
    try:
        report = read_json(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({truncate(error)})") from error
    try:
        _validate(report)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        reason = truncate(f"{type(error).__name__}: {error}")
        raise UserError(f"{file}: is no report of an evaluation ({reason})") from error
    validated: dict[str, Any] = report
    return validated | {"provenance": _BEFORE | validated["provenance"]}


def _validate(report: Any) -> None:
    """Raise an error that describes the first problem of a report."""
    p = _mapping(report)["provenance"]
    for name in _NAMES:
        _name(p[name])
    for name in _COUNTS:
        _count(p[name])
    _number(p["seed"])
    _count(p["views"]["test"]["views"])
    _name(p["views"]["test"]["split"])
    for value in _mapping(p.get("retrieval_chance", {})).values():
        _number(value)
    if not isinstance(p["lengths"], list) or not 0 < len(p["lengths"]) <= _MAX_ENTRIES:
        raise ValueError("provenance.lengths")
    lengths = {str(_count(length)) for length in p["lengths"]}
    for metric in all_metrics():
        if metric.key in report or metric.required:
            _validate_tree(report[metric.key], metric.levels, lengths)
        if f"{metric.key}_std" in report:
            _validate_deviations(report[metric.key], report[f"{metric.key}_std"])


def _validate_tree(tree: Any, levels: Sequence[Level], lengths: set[str]) -> None:
    if not levels:
        _number(tree)
        return
    level = levels[0]
    for key, branch in _mapping(tree).items():
        _name(key)
        _validate_tree(branch, levels[1:], lengths)
    if level == LENGTH and set(tree) != lengths:
        raise ValueError("lengths of contexts differ from provenance.lengths")
    if level.complete and not set(level.names) <= set(tree):
        raise ValueError(f"level {level.name} lacks keys")


def _validate_deviations(tree: Any, other: Any) -> None:
    """Raise ValueError unless the other tree has the same keys, and numbers of at least 0."""
    if not isinstance(tree, dict):
        if not _number(other) >= 0:
            raise ValueError("a deviation is negative")
        return
    if tree.keys() != _mapping(other).keys():
        raise ValueError("keys of values and deviations differ")
    for key, branch in tree.items():
        _validate_deviations(branch, other[key])


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict) or len(value) > _MAX_ENTRIES:
        raise TypeError(f"{truncate(value)} is no object of at most {_MAX_ENTRIES} entries")
    return value


def _name(value: Any) -> None:
    # Matplotlib parses text between dollar signs as a formula.
    valid = isinstance(value, str) and len(value) <= _MAX_NAME and value.isprintable()
    if not valid or "$" in value:
        raise ValueError(f"{truncate(value)} is no name")


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{truncate(value)} is no number")
    if not abs(value) < _MAX_ABS:
        raise ValueError("a number is out of range")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or _number(value) < 0:
        raise TypeError(f"{truncate(value)} is no count")
    return value
