"""Reports that are read back: checked as a whole, since anyone may have written them."""

from collections.abc import Mapping
from typing import Any

from etils import epath

from contextssl_jax.errors import UserError
from contextssl_jax.evaluation.measures import PROBES, TARGETS
from contextssl_jax.storage.safe_json import read_json, truncate

_LARGEST = 1e15  # number, either way
_MOST, _LONGEST = 64, 200  # entries of a level, characters of a name
_NAMES = ("method", "data", "config", "context_split")
_COUNTS = ("step", "draws")
# The depth of the trees that are compared, and whether their last keys are lengths of contexts.
_TREES = {
    "adaptivity": (4, True),
    "r2": (5, True),
    "r2_features": (3, False),
    "retrieval": (3, True),
    "adaptivity_global": (4, True),
    "r2_global": (5, True),
    "r2_features_global": (3, False),
    "accuracy_features": (2, False),
    "accuracy_told": (2, True),
}
_OPTIONAL = frozenset(list(_TREES)[4:])


def report_uses_context(provenance: Mapping[str, Any]) -> bool:
    """Says whether a report is of a method that reads contexts, by the report's provenance."""
    return any(provenance["lengths"])


def read_report(file: epath.Path) -> dict[str, Any]:
    """Reads a report.json.

    Raises:
      UserError: it cannot be read, or is no report of an evaluation.
    """
    try:
        report = read_json(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({truncate(error)})") from error
    try:
        _check(report)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        told = f"{type(error).__name__}: {error}"
        raise UserError(f"{file}: is no report of an evaluation ({truncate(told)})") from error
    checked: dict[str, Any] = report
    return checked


def _check(report: Any) -> None:
    """Raises what is wrong with a report."""
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
    if not isinstance(p["lengths"], list) or not 0 < len(p["lengths"]) <= _MOST:
        raise ValueError("provenance.lengths")
    lengths = {str(_count(length)) for length in p["lengths"]}
    for name, (depth, by_length) in _TREES.items():
        if name in report or name not in _OPTIONAL:
            _tree(report[name], depth, lengths if by_length else None)
        if f"{name}_std" in report:
            _same(report[name], report[f"{name}_std"])
    for name in ("r2", "r2_global"):
        for by_group in report.get(name, {}).values():
            for by_probe in by_group.values():
                for probe in PROBES:
                    for target in TARGETS:
                        by_probe[probe][target]


def _tree(tree: Any, depth: int, lengths: set[str] | None) -> None:
    if depth == 0:
        _number(tree)
        return
    for key, branch in _mapping(tree).items():
        _name(key)
        _tree(branch, depth - 1, lengths)
    if depth == 1 and lengths is not None and set(tree) != lengths:
        raise ValueError("its figures are not of the lengths that it names")


def _same(tree: Any, other: Any) -> None:
    """Raises ValueError unless the other tree has the same keys, and numbers that are no less."""
    if not isinstance(tree, dict):
        if not _number(other) >= 0:
            raise ValueError("a deviation is below 0")
        return
    if tree.keys() != _mapping(other).keys():
        raise ValueError("its deviations are not those of its figures")
    for key, branch in tree.items():
        _same(branch, other[key])


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict) or len(value) > _MOST:
        raise TypeError(f"{truncate(value)} is no object of at most {_MOST} entries")
    return value


def _name(value: Any) -> None:
    # Pictures take dollars for formulas.
    good = isinstance(value, str) and len(value) <= _LONGEST and value.isprintable()
    if not good or "$" in value:
        raise ValueError(f"{truncate(value)} is no name")


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{truncate(value)} is no number")
    if not abs(value) < _LARGEST:
        raise ValueError("a number is out of range")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or _number(value) < 0:
        raise TypeError(f"{truncate(value)} is no count")
    return value
