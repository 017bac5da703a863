"""A cheap look at held-out data during training: is there adaptation, and are there classes?

No adaptation does not show in the loss: a model may align and predict well and yet ignore its
context. The rows of this monitor then are the same under every environment.
"""

from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.errors import UserError
from contextssl_jax.evaluation.contexts import Conditions, EncodedContexts
from contextssl_jax.evaluation.probes import knn_accuracy, ridge_predict
from contextssl_jax.evaluation.reader import ForwardPasses
from contextssl_jax.evaluation.scores import r2_per_entry
from contextssl_jax.evaluation.views import draw_views, identity_views
from contextssl_jax.experiment import Experiment
from contextssl_jax.methods.base import Variables

Monitor = Callable[[Variables], dict[str, float]]

_FIT, _TEST, _CONTEXT = range(10, 13)  # streams of randomness, apart from those of data.contexts
_BATCH = 250  # views at once


def build_monitor(config: ConfigDict, experiment: Experiment) -> Monitor:
    """Draws the held-out views and the contexts once, and returns the look at variables.

    The look returns `knn`, the accuracy of kNN on the encoder's features of untouched images
    (where the data set knows such, else of the drawn views), if both splits have labels; and
    `r2/<environment>/<group>/<tokens>`: ridge regression of single views' latents, mean over the
    group's entries, after 0 tokens and after 2K - 2 of a context of the test split. The latter is
    a mean over several drawn contexts: what one of them makes a model forget varies widely. Of a
    method that reads no contexts there is the former alone.

    Args:
      config: for `seed`, `data.pairs` and the section `monitor`.
      experiment: views to fit on come from the train split, all others from the test split.

    Raises:
      UserError: a split is too small for the views that are asked for.
    """
    dataset, options, pairs = experiment.dataset, config.monitor, config.data.pairs
    space, train, test = dataset.space, dataset.splits["train"], dataset.splits["test"]
    needed = max(options.test_views, options.contexts * pairs)
    for name, where, n in (
        ("fit_views", "train", options.fit_views),
        ("test_views", "test", needed),
    ):
        if n > dataset.splits[where].size:
            size = dataset.splits[where].size
            raise UserError(f"monitor.{name}: needs {n} records, the {where} split has {size}")
    if options.neighbours > options.fit_views:
        raise UserError("monitor.neighbours: is more than monitor.fit_views")
    views = (
        draw_views(train, (config.seed, _FIT), options.fit_views, 1),
        draw_views(test, (config.seed, _TEST), options.test_views, 1),
    )
    still = views if space.identity is None else [identity_views(v, space.identity) for v in views]
    drawn = draw_views(test, (config.seed, _CONTEXT), options.contexts * pairs, 2)
    contexts = [drawn.part(slice(i * pairs, (i + 1) * pairs)) for i in range(options.contexts)]
    uses_context = experiment.method.uses_context
    conditions = Conditions(experiment.environments, (0, 2 * pairs - 2) if uses_context else (0,))
    reader = ForwardPasses(experiment.method, _BATCH)
    t_fit, t_test = (np.asarray(space.standardize(v.transform_params[:, 0])) for v in views)
    owned = [space.param_group_ids == g for g in range(len(space.names))]

    def look(variables: Variables) -> dict[str, float]:
        variables = reader.place(variables)
        result = {}
        if views[0].labels is not None and views[1].labels is not None:
            bank, asked = (reader.encode(variables, v)[:, 0] for v in still)
            found = knn_accuracy(bank, views[0].labels, asked, views[1].labels, options.neighbours)
            result["knn"] = float(found)
        z = [reader.encode(variables, v)[:, 0] for v in views]
        scores = []
        for pair_views in contexts if uses_context else contexts[:1]:
            context = EncodedContexts(reader, variables, space, conditions, pair_views, None)
            h_fit, h_test = (context.plain(x) for x in z)
            told = ridge_predict(h_fit, t_fit, h_test, (options.penalty,))[0]
            scores.append(r2_per_entry(t_test, np.asarray(told)))
        mean = np.mean(scores, axis=0)
        for name in experiment.environments:
            for length in conditions.lengths:
                row = mean[conditions.row(name, length)]
                for group, own in zip(space.names, owned, strict=True):
                    result[f"r2/{name}/{group}/{length}"] = float(row[own].mean())
        return result

    return look
