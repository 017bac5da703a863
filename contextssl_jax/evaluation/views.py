"""The views that an evaluation looks at: which records of a split, and which latents."""

from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.data.dataset import Dataset, Split
from contextssl_jax.errors import UserError, lookup

# Streams of randomness, apart from those of data.contexts and of the monitor.
_FIT, _TEST, _CONTEXT, _RETRIEVAL, _FIT_IMAGES, _TEST_IMAGES = range(20, 26)


class Views(NamedTuple):
    """V drawn views of each of n records, on the host."""

    record: Any  # leaves [n, 1 or V, ...], see Split.draw
    transform_params: np.ndarray  # in their own units, float32 [n, V, T + nuisances]
    indices: np.ndarray  # the records' places in the split, int [n]
    labels: np.ndarray | None  # int32 [n]

    @property
    def total(self) -> int:
        """Views in all, n V."""
        return self.transform_params.shape[0] * self.transform_params.shape[1]

    def part(self, records: slice) -> "Views":
        """Returns the views of some of the records."""
        return Views(
            jax.tree.map(lambda leaf: leaf[records], self.record),
            self.transform_params[records],
            self.indices[records],
            None if self.labels is None else self.labels[records],
        )

    def rows(self, rows: np.ndarray) -> tuple[Any, np.ndarray]:
        """Returns record leaves [m, ...] and latents [m, T + nuisances] of rows [m] of the n V."""
        record, view = np.divmod(rows, self.transform_params.shape[1])

        def take(leaf: np.ndarray) -> np.ndarray:
            return leaf[record, view if leaf.shape[1] > 1 else 0]

        return jax.tree.map(take, self.record), self.transform_params[record, view]


def draw_views(
    split: Split, seed: tuple[int, ...], n: int, views: int, exclude: np.ndarray | None = None
) -> Views:
    """Draws views of n different records of the split, of none whose index is excluded."""
    rng = np.random.default_rng(seed)
    free = split.size if exclude is None else np.setdiff1d(np.arange(split.size), exclude)
    indices = rng.choice(free, n, replace=False)
    record, transform_params = split.draw(rng, indices, views)
    labels = None if split.labels is None else split.labels[indices]
    return Views(record, transform_params, indices, labels)


def identity_views(views: Views, identity: np.ndarray) -> Views:
    """Returns the records as they are, one view each, by the latent vector that leaves them so."""
    n = len(views.indices)
    record = jax.tree.map(lambda leaf: leaf[:, :1], views.record)
    return views._replace(record=record, transform_params=np.tile(identity, (n, 1, 1)))


class EvalData(NamedTuple):
    """All views of an evaluation."""

    fit: Views  # two views of records of the train split, on which probes are fitted
    test: Views  # two views of records of the test split, on which they are scored
    fit_images: Views  # one untouched view each, where there is such a thing, for classes
    test_images: Views
    retrieval: Views  # V views each of records of the test split
    contexts: tuple[Views, ...]  # two views each of as many records as the longest context has


def draw_eval_data(options: ConfigDict, dataset: Dataset, longest: int) -> EvalData:
    """Draws the views of an evaluation.

    Contexts of the test split are of none of the records that are embedded after them.

    Args:
      options: the section `eval`.
      dataset: whose splits to draw from.
      longest: tokens of the longest context, even; 0 where contexts are not read, so that drawing
        several would be of no use.

    Raises:
      UserError: a split has too few records.
    """
    seed, train, test = options.seed, dataset.splits["train"], dataset.splits["test"]
    images = [split.size if options.images is None else options.images for split in (train, test)]
    for name, asked, split, where in (
        ("fit_records", options.fit_records, train, "train"),
        ("test_records", options.test_records, test, "test"),
        ("retrieval.records", options.retrieval.records, test, "test"),
        ("images", images[0], train, "train"),
        ("images", images[1], test, "test"),
    ):
        if asked > split.size:
            raise UserError(f"eval.{name}: {asked} records, but the {where} split has {split.size}")

    def still(split: Split, stream: int, n: int) -> Views:
        views = draw_views(split, (seed, stream), n, 1)
        identity = dataset.space.identity
        return views if identity is None else identity_views(views, identity)

    scored = draw_views(test, (seed, _TEST), options.test_records, 2)
    ranked = draw_views(
        test, (seed, _RETRIEVAL), options.retrieval.records, options.retrieval.views
    )
    source = lookup(dataset.splits, options.context_split, "eval.context_split")
    used = np.union1d(scored.indices, ranked.indices) if source is test else np.zeros(0, int)
    free, pairs = source.size - len(used), longest // 2
    if pairs > free:
        raise UserError(
            f"eval.lengths: a context of {longest} tokens needs {pairs} records, but the"
            f" {options.context_split} split has {free} that are not looked at themselves"
        )
    contexts = (
        draw_views(source, (seed, _CONTEXT, draw), pairs, 2, used)
        for draw in range(options.draws if pairs else 1)
    )
    return EvalData(
        draw_views(train, (seed, _FIT), options.fit_records, 2),
        scored,
        still(train, _FIT_IMAGES, images[0]),
        still(test, _TEST_IMAGES, images[1]),
        ranked,
        tuple(contexts),
    )
