"""A cheap look at held-out data during training: is there adaptation, and are there classes?

No adaptation does not show in the loss: a model may align and predict well and yet ignore its
context. The rows of this monitor then are the same under every environment.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.data.dataset import Split
from contextssl_jax.errors import UserError
from contextssl_jax.evaluation.probes import knn_accuracy, r2_per_entry, ridge_predict
from contextssl_jax.experiment import Experiment
from contextssl_jax.methods.base import Variables, hide

Look = Callable[[Variables], dict[str, float]]

_FIT, _TEST, _CONTEXT = range(10, 13)  # streams of randomness, apart from those of data.contexts
_CHUNK = 250  # views encoded at once


class Views(NamedTuple):
    """Drawn views of a split, on the host."""

    record: Any  # leaves [n, ...]
    latents: np.ndarray  # float32 [n, T + nuisances]
    labels: np.ndarray | None  # int32 [n]


def draw_views(split: Split, seed: tuple[int, ...], n: int) -> Views:
    """Draws one view each of n records of the split."""
    rng = np.random.default_rng(seed)
    indices = rng.choice(split.size, n, replace=False)
    record, latents = split.draw(rng, indices, 1)
    labels = None if split.labels is None else split.labels[indices]
    return Views(jax.tree.map(lambda leaf: leaf[:, 0], record), latents[:, 0], labels)


def build_monitor(config: ConfigDict, experiment: Experiment) -> Look:
    """Draws the held-out views and the context once, and returns the look at a set of variables.

    The look returns `knn`, the accuracy of kNN on the encoder's features of untouched images
    (where the data set has labels and knows untouched images, else of the drawn views), and
    `r2/<environment>/<group>/<tokens>`: ridge regression of single views' latents, mean over the
    group's entries, after 0 tokens and after 2K - 2 of a context of the test split. The latter is
    a mean over several drawn contexts: what one of them makes a model forget varies widely.

    Args:
      config: for `seed`, `data.pairs` and the section `monitor`.
      experiment: views to fit on come from the train split, all others from the test split.

    Raises:
      UserError: a split is too small for the views that are asked for.
    """
    dataset, method = experiment.dataset, experiment.method
    options, pairs, space = config.monitor, config.data.pairs, dataset.space
    for name, split, needed in (
        ("fit_views", "train", options.fit_views),
        ("test_views", "test", max(options.test_views, options.contexts * pairs)),
    ):
        if needed > dataset.splits[split].size:
            size = dataset.splits[split].size
            raise UserError(f"monitor.{name}: needs {needed} records, the {split} split has {size}")
    if options.neighbours > options.fit_views:
        raise UserError("monitor.neighbours: is more than monitor.fit_views")
    fit = draw_views(dataset.splits["train"], (config.seed, _FIT), options.fit_views)
    test = draw_views(dataset.splits["test"], (config.seed, _TEST), options.test_views)
    rng = np.random.default_rng((config.seed, _CONTEXT))
    drawn = options.contexts * pairs
    indices = rng.choice(dataset.splits["test"].size, drawn, replace=False)
    record, latents = dataset.splits["test"].draw(rng, indices, 2)
    record = jax.tree.map(
        lambda leaf: np.broadcast_to(leaf, (drawn, 2, *leaf.shape[2:])).reshape(
            2 * drawn, *leaf.shape[2:]
        ),
        record,
    )
    paired = Views(record, latents.reshape(2 * drawn, -1), None)
    latents = latents.reshape(options.contexts, pairs, 2, -1)
    encode = jax.jit(method.features)

    def features(variables: Variables, views: Views) -> jax.Array:
        n = len(views.latents)
        chunks = [slice(i, min(i + _CHUNK, n)) for i in range(0, n, _CHUNK)]
        return jnp.concatenate(
            [encode(variables, *jax.tree.map(lambda leaf, s=s: leaf[s], views[:2])) for s in chunks]
        )

    @functools.partial(jax.jit, static_argnames="length")
    def r2(
        variables: Variables,
        views: tuple[jax.Array, jax.Array],
        pair_features: jax.Array,
        t: jax.Array,
        shown: jax.Array,
        length: int,
    ) -> jax.Array:
        """R² of each group, [G], after a context of features [K, 2, F] and latents t [K, 2, .]."""
        actions = hide(space.actions(t[:, 0], t[:, 1]), shown, space.action_owner)
        cache = method.read(variables, pair_features, actions)
        h = [
            method.embed(variables, cache, length, z, jnp.zeros((len(z), actions.shape[1])))
            for z in views
        ]
        t_fit, t_test = space.standardise(fit.latents), space.standardise(test.latents)
        told = r2_per_entry(t_test, ridge_predict(h[0], t_fit, h[1], options.penalty))
        owner = jax.nn.one_hot(space.latent_owner, len(space.groups))
        return told @ owner / owner.sum(axis=0)

    def look(variables: Variables) -> dict[str, float]:
        z = features(variables, fit), features(variables, test)
        z_pairs = features(variables, paired).reshape(options.contexts, pairs, 2, -1)
        contexts = list(zip(z_pairs, latents, strict=True))
        result = {}
        if fit.labels is not None:
            clean = space.identity
            banks = z
            if clean is not None:
                clean_views = [
                    views._replace(latents=np.tile(clean, (len(views.latents), 1)))
                    for views in (fit, test)
                ]
                banks = features(variables, clean_views[0]), features(variables, clean_views[1])
            result["knn"] = float(
                jax.jit(knn_accuracy, static_argnums=4)(
                    banks[0], fit.labels, banks[1], test.labels, options.neighbours
                )
            )
        for name, shown in experiment.environments.items():
            # No context, where any will do, and the longest in training.
            for length, read in ((0, contexts[:1]), (2 * pairs - 2, contexts)):
                scores = np.mean([r2(variables, z, *one, shown, length) for one in read], axis=0)
                for group, score in zip(space.names, scores, strict=True):
                    result[f"r2/{name}/{group}/{length}"] = float(score)
        return result

    return look
