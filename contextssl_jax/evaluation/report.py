"""An evaluation's figures as one tree for JSON, each named by what it is and where it is from."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.data import resume_free_options
from contextssl_jax.evaluation.contexts import Conditions
from contextssl_jax.evaluation.measures import PROBES, TARGETS, Metrics
from contextssl_jax.evaluation.retrieval import chance
from contextssl_jax.evaluation.scores import Target
from contextssl_jax.evaluation.views import EvalData
from contextssl_jax.run.metadata import device_summary, git_revision
from contextssl_jax.run.workdir import fingerprint
from contextssl_jax.transforms import ParameterSpace

Tree = dict[str, Any]
_KINDS = {"mean": "r2", "global": "r2_global"}  # definitions of R², see scores.score


class EvalResults(NamedTuple):
    """All that was measured."""

    floor: Metrics  # of the constant predictor, by target
    features: Metrics  # of the encoder alone
    draws: Sequence[Metrics]  # under every condition, of each drawn context


def assemble(
    conditions: Conditions, space: ParameterSpace, targets: Mapping[str, Target], found: EvalResults
) -> Tree:
    """Names every figure.

    Figures that depend on contexts are means over the drawn ones; with more than one, the
    deviation across them is beside, under the same name with `_std`.

    Returns:
      r2, r2_global: [environment][group][probe][target][length]; r2_entries ends in [entry].
      r2_features, r2_features_global: [group][probe][target], of the encoder's features.
      r2_floor: [group][target], what the best constant scores by both definitions.
      adaptivity, adaptivity_global: [group][probe][target][length]; nothing without contexts.
      accuracy_features: [probe][share]; accuracy_embeddings: [environment][probe][share][length].
      retrieval: [environment][measure][length].
      erasure: [environment][group]["readable" or "share"][length].
      predictor_r2: [environment][group][token][length], of a method that tells latents.
      accuracy_told: [environment][length], of a method that tells classes.
    """
    groups = space.names
    trees = [_of_draw(draw, conditions, space, targets) for draw in found.draws]
    figures: Tree = map_tree(lambda *x: float(np.mean(x)), *trees)
    if len(trees) > 1:
        spread = map_tree(lambda *x: float(np.std(x, ddof=1)), *trees)
        figures |= {f"{name}_std": tree for name, tree in spread.items()}
    figures["r2_floor"] = {
        group: {
            target: {kind: float(found.floor[target][kind][g]) for kind in ("mean", "global")}
            for target in TARGETS
        }
        for g, group in enumerate(groups)
    }
    for kind, name in _KINDS.items():
        figures[name.replace("r2", "r2_features")] = {
            group: {
                probe: {t: float(found.features["r2"][probe][t][kind][0, g]) for t in TARGETS}
                for probe in PROBES
            }
            for g, group in enumerate(groups)
        }
    if "accuracy" in found.features:
        figures["accuracy_features"] = map_tree(lambda x: float(x[0]), found.features["accuracy"])
    return figures


def _of_draw(
    draw: Metrics, conditions: Conditions, space: ParameterSpace, targets: Mapping[str, Target]
) -> Tree:
    """Names the figures of one drawn context."""
    groups, environments = space.names, tuple(conditions.environments)
    by_length = conditions.by_length
    tree: Tree = {
        name: {
            e: {
                group: {
                    probe: {t: by_length(e, draw["r2"][probe][t][kind][:, g]) for t in TARGETS}
                    for probe in PROBES
                }
                for g, group in enumerate(groups)
            }
            for e in environments
        }
        for kind, name in _KINDS.items()
    }
    tree["r2_entries"] = {
        e: {
            group: {
                probe: {
                    t: {
                        entry: by_length(e, draw["r2"][probe][t]["entries"][:, i])
                        for i, entry in enumerate(target.names)
                        if target.owner[i] == g
                    }
                    for t, target in targets.items()
                }
                for probe in PROBES
            }
            for g, group in enumerate(groups)
        }
        for e in environments
    }
    for name in _KINDS.values():
        tree[name.replace("r2", "adaptivity")] = adaptivity(tree[name], conditions, groups)
    tree["retrieval"] = {
        e: {
            measure: _named(conditions, values[place])
            for measure, values in draw["retrieval"].items()
        }
        for place, e in enumerate(environments)
    }
    tree["erasure"] = {
        e: {
            group: {name: by_length(e, values[:, g]) for name, values in draw["erasure"].items()}
            for g, group in enumerate(groups)
        }
        for e in environments
    }
    if "predictor" in draw:
        tree["predictor_r2"] = _told_r2(draw, conditions, space)
    if "told" in draw:
        tree["accuracy_told"] = {
            e: _named(conditions, values)
            for e, values in zip(environments, draw["told"], strict=True)
        }
    if "accuracy" in draw:
        tree["accuracy_embeddings"] = {
            e: {
                probe: {share: by_length(e, values) for share, values in by_share.items()}
                for probe, by_share in draw["accuracy"].items()
            }
            for e in environments
        }
    return tree


def _told_r2(draw: Metrics, conditions: Conditions, space: ParameterSpace) -> Tree:
    plain, asked = (draw["predictor"][token] for token in ("plain", "asked"))
    return {
        e: {
            group: {
                "z+": conditions.by_length(e, plain[:, own].mean(axis=1)),
                "z_r": _named(conditions, asked[place][:, own].mean(axis=1)),
            }
            for g, group in enumerate(space.names)
            for own in [space.param_group_ids == g]
        }
        for place, e in enumerate(conditions.environments)
    }


def _named(conditions: Conditions, values: np.ndarray) -> Tree:
    """Names an environment's values [lengths] by length."""
    return dict(zip(map(str, conditions.lengths), values.tolist(), strict=True))


def map_tree(f: Callable[..., Any], *trees: Any) -> Any:
    """Applies f to the leaves of equal trees of dicts, whose order stays (JAX would sort it)."""
    if isinstance(trees[0], dict):
        return {key: map_tree(f, *(tree[key] for tree in trees)) for key in trees[0]}
    return f(*trees)


def adaptivity(r2: Tree, conditions: Conditions, groups: Sequence[str]) -> Tree:
    """How far each group's R² under its own context lies above that under the others'.

    Own is the environment that shows the group alone. The others show one other group alone; where
    there is none, those that show no group at all. Without contexts nothing adapts.

    Args:
      r2: [environment][group][probe][target][length].
      conditions: the environments.
      groups: the groups' names.

    Returns:
      [group][probe][target][length]; without groups that have no own or no other environment.
    """
    shown = {name: np.flatnonzero(mask).tolist() for name, mask in conditions.environments.items()}
    result = {}
    for g, group in enumerate(groups if conditions.nonzero_lengths else ()):
        own = [name for name, some in shown.items() if some == [g]]
        others = [name for name, some in shown.items() if len(some) == 1 and some != [g]]
        others = others or [name for name, some in shown.items() if not some]
        if own and others:
            result[group] = map_tree(
                lambda mine, *theirs: mine - np.mean(theirs),
                r2[own[0]][group],
                *(r2[other][group] for other in others),
            )
    return result


def provenance(
    config: ConfigDict,
    data: str,
    step: int,
    looked: EvalData,
    conditions: Conditions,
    seconds: Tree,
) -> Tree:
    """Says what the figures are of: run, data set, step, views, seeds, contexts, machine, time."""
    options = config.eval
    described = {
        "fit": ("train", looked.fit),
        "test": ("test", looked.test),
        "fit_images": ("train", looked.fit_images),
        "test_images": ("test", looked.test_images),
        "retrieval": ("test", looked.retrieval),
    }
    return {
        "config": fingerprint(config, resume_free_options()),
        "method": config.method,
        "data": data,
        "groups": list(config.groups),
        "seed": config.seed,
        "step": step,
        "steps": config.train.steps,
        "evaluation_seed": options.seed,
        "environments": list(conditions.environments),
        "lengths": list(conditions.lengths),
        "draws": len(looked.contexts),
        "context_split": options.context_split,
        "sparse": options.sparse,
        "views": {
            name: {"split": split, "records": len(views.indices), "views": views.total}
            for name, (split, views) in described.items()
        },
        "probe": options.probe.to_dict(),
        "exclude_source": options.retrieval.exclude_source,
        "retrieval_chance": chance(
            looked.retrieval.transform_params.shape[1] - int(options.retrieval.exclude_source)
        ),
        "device": device_summary(),
        "git": git_revision(),
        "jax": jax.__version__,
        "seconds": seconds,
    }
