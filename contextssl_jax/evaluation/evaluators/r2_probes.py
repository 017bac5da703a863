"""R² of probes that predict transform parameters and actions, and adaptivity to the context."""

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.evaluation.contexts import other_environments
from contextssl_jax.evaluation.evaluators.base import (
    CONTEXT,
    GROUP,
    LENGTH,
    Comparison,
    Embeddings,
    EvalInputs,
    Evaluator,
    Level,
    Metric,
    Report,
    TableLayout,
    Tree,
    describe_views,
    map_tree,
    nest,
)
from contextssl_jax.evaluation.parameter_probes import PROBES, TARGETS, Scores, probe_scores
from contextssl_jax.evaluation.probes import ridge_predict
from contextssl_jax.evaluation.scores import score
from contextssl_jax.evaluation.trained_probes import inputs_of
from contextssl_jax.evaluation.views import EvalData

_KEY = 0
_TINY = 1e-6  # a penalty that only keeps the problem solvable where parameters depend on others
_DEFINITIONS = {"mean": "", "global": "_global"}  # see scores.score; suffixes of keys


def evaluate(inputs: EvalInputs, embeddings: Embeddings) -> Tree:
    """Return R² from view embeddings in both definitions and of each entry, and adaptivity."""
    conditions, groups = inputs.conditions, inputs.space.names
    environments = conditions.environments
    scores = _scores(inputs, embeddings.fit, embeddings.test)

    def of_entries(e: str, group: str, probe: str, t: str) -> Tree:
        own, values = inputs.targets[t].group_ids, scores[probe][t]["entries"]
        return {
            name: conditions.by_length(e, values[:, i])
            for i, name in enumerate(inputs.targets[t].names)
            if own[i] == groups.index(group)
        }

    tree: Tree = {}
    for kind, suffix in _DEFINITIONS.items():

        def of_group(e: str, group: str, probe: str, t: str, kind: str = kind) -> Tree:
            return conditions.by_length(e, scores[probe][t][kind][:, groups.index(group)])

        tree[f"r2{suffix}"] = nest(of_group, environments, groups, PROBES, TARGETS)
    tree["r2_entries"] = nest(of_entries, environments, groups, PROBES, TARGETS)
    for suffix in _DEFINITIONS.values():  # without contexts nothing adapts
        adapting = groups if conditions.nonzero_lengths else ()
        tree[f"adaptivity{suffix}"] = adaptivity(tree[f"r2{suffix}"], adapting)
    return tree


def evaluate_features(inputs: EvalInputs) -> Tree:
    """Return R² from the encoder's features, and the bounds of a constant and a linear one."""
    z, groups = inputs.features, inputs.space.names
    scores = _scores(inputs, z.fit[None], z.test[None])
    bounds = {
        "r2_floor": {t: score(x, x.constant(), len(groups)) for t, x in inputs.targets.items()},
        "r2_ceiling": {"pair": _linear_limit(inputs)},
    }
    tree: Tree = {
        key: nest(
            lambda group, t, kind, by=by: float(by[t][kind][0, groups.index(group)]),
            groups,
            by,
            _DEFINITIONS,
        )
        for key, by in bounds.items()
    }
    for kind, suffix in _DEFINITIONS.items():

        def of_group(group: str, probe: str, t: str, kind: str = kind) -> float:
            return float(scores[probe][t][kind][0, groups.index(group)])

        tree[f"r2_features{suffix}"] = nest(of_group, groups, PROBES, TARGETS)
    return tree


def _scores(inputs: EvalInputs, fit: np.ndarray, test: np.ndarray) -> Scores:
    key, options = jax.random.fold_in(inputs.key, _KEY), inputs.options.probe
    groups = len(inputs.space.names)
    return probe_scores(key, fit, test, inputs.targets, options, groups, inputs.check_stop)


def _linear_limit(inputs: EvalInputs) -> dict[str, np.ndarray]:
    """Return the scores of a linear map from the true parameters of both views to their action.

    About 1 where the action is a difference of parameters. A linear probe of perfect embeddings
    scores no more, so that groups with a low value are beyond it.
    """
    fit, test = (
        inputs_of(jnp.asarray(inputs.space.standardize(views.transform_params))[None])["pair"]
        for views in (inputs.data.fit, inputs.data.test)
    )
    target = inputs.targets["pair"]
    predicted = np.asarray(ridge_predict(fit, target.fit, test, (_TINY,)))[0]
    return score(target, predicted, len(inputs.space.names))


def adaptivity(r2: Mapping[str, Tree], groups: Iterable[str]) -> Tree:
    """Return each group's R² in its own environment minus the mean over the other environments.

    Args:
      r2: [environment][group][probe][target][length].
      groups: the groups' names.

    Returns:
      [group][probe][target][length], of groups with an own and another environment.
    """
    result = {}
    for group in groups:
        others = other_environments(r2, group)
        if group in r2 and others:
            result[group] = map_tree(
                lambda own, *other: own - np.mean(other),
                r2[group][group],
                *(r2[e][group] for e in others),
            )
    return result


def describe_probes(report: Report) -> str:
    """Return a sentence on the probes' settings, from a report's provenance."""
    probe = report["provenance"]["probe"]
    return (
        f"Ridge penalties: {probe['weak']} (weak) and {probe['strong']} (strong) of the input"
        f" variance. Linear and MLP probes: {probe['steps']:,} Adam steps of {probe['batch']}"
        f" records at learning rate {probe['learning_rate']}, hidden layers of the MLP"
        f" {tuple(probe['hidden'])}."
    )


def _details(report: Report) -> str:
    return f"{describe_views(report, 'fit', 'test')} {describe_probes(report)}"


def _settings(options: ConfigDict, data: EvalData) -> Tree:
    return {"probe": options.probe.to_dict()}


_PROBE, _TARGET = Level("probe", PROBES, complete=True), Level("target", TARGETS, complete=True)
_BY_GROUP = (GROUP, _PROBE, _TARGET)


def _metrics(suffix: str, kind: str, unit: str) -> tuple[Metric, ...]:
    """Return the metrics of one definition of R²; only the first definition is compared."""
    first = not suffix
    title = "R² of probes" if first else "R² of probes, official definition"

    def of_features(report: Report, keys: Mapping[str, str]) -> float:
        by_probe = report[f"r2_features{suffix}"][keys["group"]]
        return float(by_probe[keys["probe"]][keys["target"]])

    def of_constant(report: Report, keys: Mapping[str, str]) -> float:
        return float(report["r2_floor"][keys["group"]][keys["target"]][kind])

    adaptivity_table = TableLayout(
        "Adaptivity",
        "R² of a group after contexts that show it, minus R² after contexts that show another one,"
        " by tokens of context. The size depends on the probe.",
        _details,
        rows=("group", "target", "probe"),
    )
    r2_table = TableLayout(
        title,
        "How well a probe predicts a group from view embeddings z⁺, by tokens of context; from the"
        " encoder's features; and the best constant prediction.",
        _details,
        rows=("context", "group", "target", "probe"),
        extra={"features": of_features, "constant": of_constant},
    )
    return (
        Metric(
            f"adaptivity{suffix}",
            (*_BY_GROUP, LENGTH),
            "difference of R²; 0 is no adaptation",
            adaptivity_table if first else None,
            Comparison() if first else None,
            required=first,
        ),
        Metric(
            f"r2{suffix}",
            (CONTEXT, *_BY_GROUP, LENGTH),
            unit,
            r2_table,
            Comparison(split="group") if first else None,
            required=first,
        ),
        Metric(f"r2_features{suffix}", _BY_GROUP, unit, required=first),
    )


EVALUATOR = Evaluator(
    metrics=(
        *_metrics("", "mean", "R², mean over a group's entries; at most 1, 0 is the data mean"),
        *_metrics(
            "_global", "global", "R² by the official definition (see the glossary), at most 1"
        ),
        Metric(
            "r2_entries",
            (CONTEXT, *_BY_GROUP, Level("entry"), LENGTH),
            "R², at most 1; 0 is the mean of the data",
            TableLayout(
                "R² of each entry after the longest context",
                "As the table of R², for each entry of parameters and actions.",
                _details,
                rows=("context", "target", "entry"),
                columns="probe",
            ),
            pooled=False,
        ),
        Metric("r2_floor", (GROUP, _TARGET, Level("definition")), "R²", pooled=False),
        Metric("r2_ceiling", (GROUP, Level("target"), Level("definition")), "R²", pooled=False),
    ),
    evaluate=evaluate,
    evaluate_features=evaluate_features,
    settings=_settings,
    terms={
        "R²": "Fraction of the variance of parameters on held-out views that a probe predicts.",
        "official definition of R²": "Of the official code: one mean over samples and entries in"
        " their own units, so that a constant scores above 0 where entries differ in their means.",
        "probe": "A small model fitted on frozen features or embeddings to predict parameters of"
        " single views, or the action (relative parameters) between two views.",
        "weak ridge, strong ridge": "Linear regression with a small or large penalty. The weak one"
        " also uses directions of small variance, the strong one only those of large variance.",
        "linear, MLP": "A linear map and a network with hidden layers, trained with Adam.",
        "adaptivity": "R² of a group in its own environment minus the mean R² in the environments"
        " of the other groups (of no group, where there are no others).",
    },
)
