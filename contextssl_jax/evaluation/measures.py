"""What is measured of embeddings under every condition, as arrays: R², classes, retrieval."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.evaluation.classification import accuracies
from contextssl_jax.evaluation.contexts import Conditions
from contextssl_jax.evaluation.probes import ridge_predict
from contextssl_jax.evaluation.retrieval import rank_targets, score_ranks
from contextssl_jax.evaluation.scores import Target, score
from contextssl_jax.evaluation.trained_probes import (
    Training,
    apply_layers,
    fit_parameter_probes,
    inputs_of,
)
from contextssl_jax.evaluation.views import Views
from contextssl_jax.transforms import ParameterSpace

PROBES = ("ridge_weak", "ridge_strong", "linear", "mlp")
TARGETS = ("single", "pair")
Metrics = dict[str, Any]  # a tree of arrays, the same for every drawn context


class ProbeOptions(NamedTuple):
    """How probes are fitted; see the section `eval.probe` of the config."""

    weak: float
    strong: float
    hidden: tuple[int, ...]
    training: Training
    neighbours: int

    @classmethod
    def of(cls, options: ConfigDict) -> "ProbeOptions":
        """Reads the section."""
        training = Training(options.steps, options.batch, options.learning_rate)
        return cls(
            options.weak, options.strong, tuple(options.hidden), training, options.neighbours
        )


def probe_targets(space: ParameterSpace, fit: Views, test: Views) -> dict[str, Target]:
    """What probes tell of two views of each record, by the target's name."""
    flat = [
        views.transform_params.reshape(-1, views.transform_params.shape[-1])
        for views in (fit, test)
    ]
    single = (np.asarray(space.standardize(t)) for t in flat)
    pair = (
        np.asarray(space.actions(v.transform_params[:, 0], v.transform_params[:, 1]))
        for v in (fit, test)
    )
    entries = [f"{group.name} {entry}" for group in space.groups for entry in group.parameter_names]
    actions = [f"{group.name} {entry}" for group in space.groups for entry in group.action_names]
    return {
        "single": Target(
            tuple(entries), space.param_group_ids, space.param_mean, space.param_std, *single
        ),
        "pair": Target(
            tuple(actions), space.action_group_ids, space.action_mean, space.action_std, *pair
        ),
    }


def constants(targets: Mapping[str, Target], groups: int) -> Metrics:
    """Scores the constant predictor, by target; see `score`."""
    return {
        name: jax.tree.map(lambda x: x[0], score(target, target.constant(), groups))
        for name, target in targets.items()
    }


def closed_r2(
    fit: np.ndarray,
    test: np.ndarray,
    targets: Mapping[str, Target],
    probing: ProbeOptions,
    groups: int,
) -> Metrics:
    """Scores ridge probes of both penalties.

    Args:
      fit: embeddings of two views of n records under U conditions, [U, n, 2, P].
      test: [U, m, 2, P].
      targets: see latent_targets.
      probing: the penalties.
      groups: G.

    Returns:
      Scores (see `score`, with U in front) by probe and target.
    """
    inputs = [inputs_of(jnp.asarray(h)) for h in (fit, test)]
    scores: Metrics = {"ridge_weak": {}, "ridge_strong": {}}
    for name, target in targets.items():
        told = ridge_predict(
            inputs[0][name], target.fit, inputs[1][name], (probing.weak, probing.strong)
        )
        for probe, one in zip(scores, np.asarray(told), strict=True):
            scores[probe][name] = score(target, one, groups)
    return scores


def trained_r2(
    key: jax.Array,
    fit: np.ndarray,
    test: np.ndarray,
    targets: Mapping[str, Target],
    probing: ProbeOptions,
    groups: int,
) -> Metrics:
    """Scores linear and MLP probes trained with Adam; see closed_r2."""
    aims = {name: jnp.asarray(target.fit) for name, target in targets.items()}
    layers = fit_parameter_probes(key, jnp.asarray(fit), aims, probing.hidden, probing.training)
    inputs = inputs_of(jnp.asarray(test))
    return {
        probe: {
            name: score(target, np.asarray(apply_layers(by[name], inputs[name])), groups)
            for name, target in targets.items()
        }
        for probe, by in layers.items()
    }


def classes(
    key: jax.Array,
    fit: np.ndarray,
    test: np.ndarray,
    labels: tuple[np.ndarray | None, np.ndarray | None],
    probing: ProbeOptions,
) -> Metrics:
    """Scores classes from all views of records.

    Args:
      key: see accuracies.
      fit: [U, n, V, D].
      test: [U, m, V, D].
      labels: int [n] and [m], or None of a data set without classes.
      probing: of which the classifiers' part.

    Returns:
      `accuracy`, see accuracies; nothing without labels.
    """
    if labels[0] is None or labels[1] is None:
        return {}
    flat = [x.reshape(len(x), -1, x.shape[-1]) for x in (fit, test)]
    repeated = np.repeat(labels[0], fit.shape[2]), np.repeat(labels[1], test.shape[2])
    told = accuracies(
        key, flat[0], repeated[0], flat[1], repeated[1], probing.neighbours, probing.training
    )
    return {"accuracy": told}


def predicted_class_accuracy(
    logits: np.ndarray, conditions: Conditions, targets: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Scores classes that the method tells by itself.

    Args:
      logits: of V views of n records under U conditions, [U, n, V, C].
      conditions: the U.
      targets: classes to be told [n] by the environment's shown groups, bool [G].

    Returns:
      Accuracy by environment and length, [E, lengths].
    """
    told = logits.argmax(axis=-1)
    return np.asarray(
        [
            [
                np.mean(told[conditions.row(name, length)] == targets(shown)[:, None])
                for length in conditions.lengths
            ]
            for name, shown in conditions.environments.items()
        ]
    )


def retrievals(
    bank: np.ndarray, queries: np.ndarray, conditions: Conditions, exclude_source: bool
) -> Metrics:
    """Scores retrieval under every environment and length.

    Args:
      bank: z⁺ of V views of n records, [U, n, V, P].
      queries: z_r of view 0 and the action to each view, [E, C, n, V, P].
      conditions: the U and the E, C.
      exclude_source: see rank_targets.

    Returns:
      Scores [E, C] by name; see score_ranks.
    """
    candidates = bank.shape[2] - int(exclude_source)
    rank = jax.jit(rank_targets, static_argnums=2)
    shape = len(conditions.environments), len(conditions.lengths)
    scores: dict[str, np.ndarray] = {}
    for e, name in enumerate(conditions.environments):
        for c, length in enumerate(conditions.lengths):
            row = bank[conditions.row(name, length)]
            ahead, tied = jax.device_get(rank(queries[e, c], row, exclude_source))
            for measure, value in score_ranks(ahead, tied, candidates).items():
                scores.setdefault(measure, np.zeros(shape))[e, c] = value
    return scores
