"""The views of an evaluation: records of a split, and transform parameters."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.data.dataset import Dataset, Split
from contextssl_jax.errors import UserError, lookup

# Random streams, disjoint from those of data.contexts and of the monitor.
_FIT, _TEST, _CONTEXT, _RETRIEVAL, _FIT_IMAGES, _TEST_IMAGES, _ORDER = range(20, 27)


class Views(NamedTuple):
    """V drawn views of each of n records, on the host."""

    record: Any  # leaves [n, 1 or V, ...], see Split.draw
    transform_params: np.ndarray  # in their own units, float32 [n, V, T + unconditioned]
    indices: np.ndarray  # the records' indices in the split, int [n]
    labels: np.ndarray | None  # int32 [n]

    @property
    def total(self) -> int:
        """Return the number of views, n V."""
        return self.transform_params.shape[0] * self.transform_params.shape[1]

    def part(self, records: slice | np.ndarray) -> "Views":
        """Return the views of some of the records, by a slice or indices."""
        return Views(
            jax.tree.map(lambda leaf: leaf[records], self.record),
            self.transform_params[records],
            self.indices[records],
            None if self.labels is None else self.labels[records],
        )

    def rows(self, rows: np.ndarray) -> tuple[Any, np.ndarray]:
        """Return record leaves [m, ...] and parameters [m, T + unconditioned] of m of n V rows."""
        record, view = np.divmod(rows, self.transform_params.shape[1])

        def take(leaf: np.ndarray) -> np.ndarray:
            return leaf[record, view if leaf.shape[1] > 1 else 0]

        return jax.tree.map(take, self.record), self.transform_params[record, view]


def draw_views(
    split: Split, seed: tuple[int, ...], n: int, views: int, exclude: np.ndarray | None = None
) -> Views:
    """Draw views of n different records of the split, except the excluded indices."""
    rng = np.random.default_rng(seed)
    free = split.size if exclude is None else np.setdiff1d(np.arange(split.size), exclude)
    indices = rng.choice(free, n, replace=False)
    record, transform_params = split.draw(rng, indices, views)
    labels = None if split.labels is None else split.labels[indices]
    return Views(record, transform_params, indices, labels)


def identity_views(views: Views, identity: np.ndarray) -> Views:
    """Return one untransformed view of each record, by the parameters of the identity."""
    n = len(views.indices)
    record = jax.tree.map(lambda leaf: leaf[:, :1], views.record)
    return views._replace(record=record, transform_params=np.tile(identity, (n, 1, 1)))


class EvalData(NamedTuple):
    """All views of an evaluation."""

    fit: Views  # two views each of records of the train split, to fit probes on
    test: Views  # two views each of records of the test split, to score probes on
    fit_images: Views  # one untransformed view each, where such views exist, for classes
    test_images: Views
    retrieval: Views  # V views each of records of the test split
    contexts: tuple[Views, ...]  # two views each of the records of the longest context


def draw_eval_data(options: ConfigDict, dataset: Dataset, longest: int) -> EvalData:
    """Draw the views of an evaluation.

    Contexts and the views embedded after them have no record in common, whichever split the
    contexts are drawn from.

    Args:
      options: the section `eval`.
      dataset: whose splits to draw from.
      longest: tokens of the longest context, even; 0 draws a single, empty context.

    Raises:
      UserError: a split has too few records.
    """
    seed, train, test = options.seed, dataset.splits["train"], dataset.splits["test"]
    images = [split.size if options.images is None else options.images for split in (train, test)]
    for name, needed, split, where in (
        ("fit_records", options.fit_records, train, "train"),
        ("test_records", options.test_records, test, "test"),
        ("retrieval.records", options.retrieval.records, test, "test"),
        ("images", images[0], train, "train"),
        ("images", images[1], test, "test"),
    ):
        if needed > split.size:
            raise UserError(
                f"--config.eval.{name}: {needed} records, but the {where} split has {split.size}."
                " Decrease it."
            )

    def untransformed(split: Split, stream: int, n: int) -> Views:
        views = draw_views(split, (seed, stream), n, 1)
        identity = dataset.space.identity
        return views if identity is None else identity_views(views, identity)

    scored = draw_views(test, (seed, _TEST), options.test_records, 2)
    ranked = draw_views(
        test, (seed, _RETRIEVAL), options.retrieval.records, options.retrieval.views
    )
    fit = draw_views(train, (seed, _FIT), options.fit_records, 2)
    source = lookup(dataset.splits, options.context_split, "--config.eval.context_split")
    embedded = {"train": (fit,), "test": (scored, ranked)}[options.context_split]
    used = functools.reduce(np.union1d, [views.indices for views in embedded])
    free, pairs = source.size - len(used), longest // 2
    if pairs > free:
        sizes = {
            "train": "--config.eval.fit_records",
            "test": "--config.eval.test_records or --config.eval.retrieval.records",
        }
        raise UserError(
            f"--config.eval.lengths: a context of {longest} tokens needs {pairs} records, but the"
            f" {options.context_split} split has {free} outside the views that are embedded after"
            f" it. Use shorter contexts, a lower {sizes[options.context_split]}, or the other"
            " --config.eval.context_split."
        )
    draws = range(options.draws if pairs else 1)
    if options.draws_of == "orders":
        one = draw_views(source, (seed, _CONTEXT, 0), pairs, 2, used)
        rng = np.random.default_rng((seed, _ORDER))
        contexts = tuple(one.part(rng.permutation(pairs)) for _ in draws)
    else:
        contexts = tuple(
            draw_views(source, (seed, _CONTEXT, draw), pairs, 2, used) for draw in draws
        )
    return EvalData(
        fit,
        scored,
        untransformed(train, _FIT_IMAGES, images[0]),
        untransformed(test, _TEST_IMAGES, images[1]),
        ranked,
        contexts,
    )
