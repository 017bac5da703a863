"""The interface of evaluators: what they compute from, and how they declare what they return."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.evaluation.contexts import Conditions
from contextssl_jax.evaluation.reader import never_stop
from contextssl_jax.evaluation.scores import Target
from contextssl_jax.evaluation.views import EvalData
from contextssl_jax.methods.base import Method, Predictions
from contextssl_jax.transforms import ParameterSpace

Tree = dict[str, Any]  # nested dicts of floats
Report = Mapping[str, Any]  # report.json
Keys = Mapping[str, str]  # one key of each level of a tree, by the level's name


class Features(NamedTuple):
    """The encoder's features of all views outside contexts, [n, V, F]; see EvalData."""

    fit: np.ndarray
    test: np.ndarray
    fit_images: np.ndarray
    test_images: np.ndarray
    retrieval: np.ndarray


@dataclass(frozen=True)
class EvalInputs:
    """What all evaluators share, the same for every drawn context.

    Attributes:
      space: parameters and actions of the conditioned groups, standardized; `method.space` has
        the method's units.
      method: the evaluated method.
      conditions: the U conditions, of E environments and C context lengths.
      data: the views behind features and embeddings, with their parameters and labels.
      targets: what probes predict of `data.fit` and `data.test`, by name.
      options: the config's section `eval`.
      key: root random key; an evaluator folds in a number that no other one uses (0 to 2 are used).
      features: the encoder's features.
      predict: returns the method's own predictions from embeddings [..., P].
      check_stop: an evaluator calls it between long parts; it raises if the program should stop.
    """

    space: ParameterSpace
    method: Method
    conditions: Conditions
    data: EvalData
    targets: Mapping[str, Target]
    options: ConfigDict
    key: jax.Array
    features: Features
    predict: Callable[[np.ndarray], Predictions]
    check_stop: Callable[[], None] = never_stop


class Embeddings(NamedTuple):
    """Unit vectors under all conditions of one drawn context.

    Attributes:
      fit: view embeddings z⁺ of two views of n records of the train split, [U, n, 2, P].
      test: view embeddings of two views of m records of the test split, [U, m, 2, P].
      retrieval: view embeddings of V views of r records of the test split, [U, r, V, P].
      predicted_targets: z_r of view 0 and the action to each view, [E, C, r, V, P].
    """

    fit: np.ndarray
    test: np.ndarray
    retrieval: np.ndarray
    predicted_targets: np.ndarray


class Level(NamedTuple):
    """One level of a metric's tree."""

    name: str  # heading of the level's column
    names: Mapping[str, str] = {}  # display names of keys; other keys are displayed as they are
    complete: bool = False  # a stored report must have every key of `names`


CONTEXT, GROUP, LENGTH = Level("context"), Level("group"), Level("length")


@dataclass(frozen=True)
class TableLayout:
    """How a metric is displayed in a report; texts are plain.

    Attributes:
      title: heading of the table.
      note: what the values are, for a reader of the paper's abstract; with the unit two lines.
      details: returns the views and settings from a report's provenance, displayed once for all
        tables that share them.
      rows: levels that identify a row, in the order of their columns; by default all but `columns`.
      columns: the level whose keys are the columns; by default the last. Where neither names the
        lengths, values are those of the longest context.
      extra: further columns by heading; each returns a value from the report and a row's keys.
    """

    title: str
    note: str
    details: Callable[[Report], str]
    rows: tuple[str, ...] = ()
    columns: str = ""
    extra: Mapping[str, Callable[[Report, Keys], float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Which values of a metric comparisons and sweep pages display.

    Attributes:
      selected: the displayed key of a level, such as {"labels": "1.0"}; by default all keys.
      split: a level of which each key has a table of its own.
      by_environment: values differ between environments even without a context.
    """

    selected: Mapping[str, str] = field(default_factory=dict)
    split: str | None = None
    by_environment: bool = False


@dataclass(frozen=True)
class Metric:
    """One key of report.json and everything that other modules need to validate and display it.

    Attributes:
      key: in report.json; deviations over drawn contexts are under the same key with `_std`.
      levels: of the tree below the key, outermost first; after the last come floats.
      unit: with the range, such as "accuracy, 0 to 1".
      table: in the report; None for values that other tables include.
      comparison: between runs; None for values that are not compared.
      required: whether every report has the key.
      pooled: whether sweeps store its mean and deviation over seeds.
    """

    key: str
    levels: tuple[Level, ...]
    unit: str
    table: TableLayout | None = None
    comparison: Comparison | None = None
    required: bool = False
    pooled: bool = True

    def __post_init__(self) -> None:
        """Check that compared metrics are by length and have a table, whose title is reused."""
        if self.comparison is not None and (self.levels[-1] != LENGTH or self.table is None):
            raise ValueError(f"{self.key}: a compared metric needs a table and lengths as keys")


def _no_values(inputs: EvalInputs) -> Tree:
    return {}


def _no_settings(options: ConfigDict, data: EvalData) -> Tree:
    return {}


@dataclass(frozen=True)
class Evaluator:
    """One measure: functions to trees of floats by metric key, and the metrics' declarations.

    Attributes:
      metrics: in the order of their tables.
      evaluate: called once for each drawn context; a key is left out where it does not apply.
      evaluate_features: called once, with what does not depend on contexts.
      settings: returns what the report's provenance records, from options and views.
      terms: definitions for the glossary of pages.
    """

    metrics: tuple[Metric, ...]
    evaluate: Callable[[EvalInputs, Embeddings], Tree]
    evaluate_features: Callable[[EvalInputs], Tree] = _no_values
    settings: Callable[[ConfigDict, EvalData], Tree] = _no_settings
    terms: Mapping[str, str] = field(default_factory=dict)


def nest(value: Callable[..., Any], *levels: Iterable[str]) -> Any:
    """Return value(key, key, ...) for all combinations of keys, as nested dicts."""
    if not levels:
        return value()
    return {key: nest(partial(value, key), *levels[1:]) for key in levels[0]}


def map_tree(f: Callable[..., Any], *trees: Any) -> Any:
    """Apply f to the leaves of equal trees of dicts and keep their order (JAX would sort it)."""
    if isinstance(trees[0], dict):
        return {key: map_tree(f, *(tree[key] for tree in trees)) for key in trees[0]}
    return f(*trees)


def describe_views(report: Report, fit: str, test: str) -> str:
    """Return a sentence on the views that probes are fitted and scored on, by provenance names."""
    views = report["provenance"]["views"]
    return (
        f"Fitted on {views[fit]['views']:,} views of {views[fit]['records']:,} records of the"
        f" {views[fit]['split']} split, scored on {views[test]['views']:,} views of"
        f" {views[test]['records']:,} records of the {views[test]['split']} split."
    )


def describe_test_views(report: Report, test: str) -> str:
    """Return a sentence on views that are scored without fitting, by their provenance name."""
    views = report["provenance"]["views"][test]
    return (
        f"Scored on {views['views']:,} views of {views['records']:,} records of the"
        f" {views['split']} split, without fitting."
    )
