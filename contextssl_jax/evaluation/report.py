"""An evaluation's results as one tree for JSON: values by name, and their provenance."""

from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.evaluation.contexts import Conditions
from contextssl_jax.evaluation.evaluators import EVALUATORS
from contextssl_jax.evaluation.evaluators.base import Tree, map_tree
from contextssl_jax.evaluation.views import EvalData
from contextssl_jax.run.metadata import device_summary, git_revision
from contextssl_jax.run.workdir import fingerprint


def merge_draws(draws: Sequence[Tree]) -> Tree:
    """Return the means over drawn contexts, by metric key.

    With more than one context, the standard deviation (n - 1) is under the same key with `_std`.

    Args:
      draws: equal trees of floats, one for each context.
    """
    merged: Tree = map_tree(lambda *x: float(np.mean(x)), *draws)
    if len(draws) > 1:
        deviations = map_tree(lambda *x: float(np.std(x, ddof=1)), *draws)
        merged |= {f"{key}_std": tree for key, tree in deviations.items()}
    return merged


def provenance(
    config: ConfigDict,
    dataset: str,
    step: int,
    data: EvalData,
    conditions: Conditions,
    seconds: Tree,
) -> Tree:
    """Return what results are of: run, data set, step, views, seeds, contexts, machine and time."""
    options = config.eval
    splits = {
        "fit": ("train", data.fit),
        "test": ("test", data.test),
        "fit_images": ("train", data.fit_images),
        "test_images": ("test", data.test_images),
        "retrieval": ("test", data.retrieval),
    }
    return {
        "config": fingerprint(config),
        "method": config.method,
        "data": dataset,
        "groups": list(config.groups),
        "seed": config.seed,
        "step": step,
        "steps": config.train.steps,
        "evaluation_seed": options.seed,
        "environments": list(conditions.environments),
        "lengths": list(conditions.lengths),
        "draws": len(data.contexts),
        "context_split": options.context_split,
        "draws_of": options.draws_of,
        "sparse": options.sparse,
        "context_mask": options.context_mask or config.mask.context,
        "rounding": options.rounding,
        "trained_tokens": 2 * config.data.pairs - 2,
        "views": {
            name: {"split": split, "records": len(views.indices), "views": views.total}
            for name, (split, views) in splits.items()
        },
        **{
            name: value
            for evaluator in EVALUATORS.values()
            for name, value in evaluator.settings(options, data).items()
        },
        "device": device_summary(),
        "git": git_revision(),
        "jax": jax.__version__,
        "seconds": seconds,
    }
