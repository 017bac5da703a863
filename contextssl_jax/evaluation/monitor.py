"""Cheap evaluation during training: adaptation to contexts, and kNN accuracy.

The loss does not reveal a model that aligns and predicts well but ignores its context. Its R² in
this monitor is the same in every environment.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.errors import UserError
from contextssl_jax.evaluation.contexts import Conditions, EncodedContexts
from contextssl_jax.evaluation.probes import knn_accuracy, ridge_predict
from contextssl_jax.evaluation.reader import ForwardPasses, never_stop
from contextssl_jax.evaluation.scores import r2_per_entry
from contextssl_jax.evaluation.views import draw_views, identity_views
from contextssl_jax.experiment import Experiment
from contextssl_jax.methods.base import Variables
from contextssl_jax.models.precision import with_precision


class Monitor(Protocol):
    """Evaluates variables."""

    def __call__(
        self, variables: Variables, check_stop: Callable[[], None] = never_stop
    ) -> dict[str, float]:
        """Return the values by name; `check_stop` is called between the parts, and may raise."""
        ...


_FIT, _TEST, _CONTEXT = range(10, 13)  # random streams, disjoint from those of data.contexts
_BATCH = 250  # views


def build_monitor(config: ConfigDict, experiment: Experiment) -> Monitor:
    """Draw held-out views and contexts once, and return the function that evaluates variables.

    It returns `knn`, the kNN accuracy of the encoder's features of untransformed images (of drawn
    views where the data set has no untransformed ones), if both splits have labels; and
    `r2/<environment>/<group>/<tokens>`, the R² of ridge regression of single views' parameters,
    mean over the group's entries, after 0 tokens and after 2K - 2 tokens of a context of the test
    split, which has no record in common with the scored views. The latter is a mean over several
    drawn contexts, between which R² varies widely; a method without contexts has only the former.

    Args:
      config: of which `seed`, `data.pairs` and the section `monitor`.
      experiment: views to fit on come from the train split, all others from the test split.

    Raises:
      UserError: a split has fewer records than the options need.
    """
    dataset, options, pairs = experiment.dataset, config.monitor, config.data.pairs
    space, train, test = dataset.space, dataset.splits["train"], dataset.splits["test"]
    method = experiment.eval_method
    uses_context = method.uses_context
    in_contexts = options.contexts * pairs if uses_context else 0
    if options.fit_views > train.size:
        raise UserError(
            f"--config.monitor.fit_views: needs {options.fit_views} records, but the train split"
            f" has {train.size}. Decrease it, or disable the monitor by --config.monitor.every=0."
        )
    if options.test_views + in_contexts > test.size:
        others = f" and {in_contexts} for contexts" if in_contexts else ""
        raise UserError(
            f"--config.monitor.test_views: needs {options.test_views} records{others}, but the"
            f" test split has {test.size}. Decrease it, or --config.monitor.contexts, or disable"
            " the monitor by --config.monitor.every=0."
        )
    if options.neighbours > options.fit_views:
        raise UserError(
            f"--config.monitor.neighbours: {options.neighbours} exceeds"
            f" --config.monitor.fit_views={options.fit_views}. Decrease it."
        )
    views = (
        draw_views(train, (config.seed, _FIT), options.fit_views, 1),
        draw_views(test, (config.seed, _TEST), options.test_views, 1),
    )
    images = views if space.identity is None else [identity_views(v, space.identity) for v in views]
    drawn = draw_views(test, (config.seed, _CONTEXT), in_contexts, 2, views[1].indices)
    contexts = [drawn.part(slice(i * pairs, (i + 1) * pairs)) for i in range(options.contexts)]
    conditions = Conditions(experiment.environments, (0, 2 * pairs - 2) if uses_context else (0,))
    passes = ForwardPasses(method, _BATCH)
    t_fit, t_test = (np.asarray(space.standardize(v.transform_params[:, 0])) for v in views)
    own_entries = [space.param_group_ids == g for g in range(len(space.names))]

    def run_monitor(
        variables: Variables, check_stop: Callable[[], None] = never_stop
    ) -> dict[str, float]:
        reader = passes.interruptible(check_stop)
        variables = reader.place(variables)
        result = {}
        if views[0].labels is not None and views[1].labels is not None:
            bank, queries = (reader.encode(variables, v)[:, 0] for v in images)
            labels, test_labels = views[0].labels, views[1].labels
            result["knn"] = float(
                knn_accuracy(bank, labels, queries, test_labels, options.neighbours)
            )
        z = [reader.encode(variables, v)[:, 0] for v in views]
        scores = []
        for pair_views in contexts if uses_context else contexts[:1]:
            context = EncodedContexts(reader, variables, method.space, conditions, pair_views, None)
            h_fit, h_test = (context.view_embeddings(x) for x in z)
            check_stop()
            predicted = ridge_predict(h_fit, t_fit, h_test, (options.penalty,))[0]
            scores.append(r2_per_entry(t_test, np.asarray(predicted)))
        mean = np.mean(scores, axis=0)
        for name in experiment.environments:
            for length in conditions.lengths:
                row = mean[conditions.row(name, length)]
                for group, own in zip(space.names, own_entries, strict=True):
                    result[f"r2/{name}/{group}/{length}"] = float(row[own].mean())
        return result

    return with_precision(run_monitor, "highest")
