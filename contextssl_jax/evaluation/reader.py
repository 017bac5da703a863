"""A method's forward passes over any number of views, in batches, on all devices of all processes.

Every batch has the same shape, so that each pass is compiled once; what the last one lacks is
filled up and cut off again. Every process calls the same passes in the same order, works on its
share of each batch, and gets the results of all.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from tqdm import tqdm

from contextssl_jax.distributed.parallel import make_mesh, replicate_on
from contextssl_jax.evaluation.views import Views
from contextssl_jax.methods.base import Method, Predictions, Variables


class ForwardPasses:
    """Encodes views, reads contexts and embeds queries with one set of variables.

    Results are host arrays, float32.
    """

    def __init__(self, method: Method, batch: int) -> None:
        """Compiles nothing yet.

        Args:
          method: whose functions to run.
          batch: views at once, over all devices; rounded up to a multiple of their number.
        """
        devices = jax.devices()
        self._batch = -(-batch // len(devices)) * len(devices)
        self._mesh = make_mesh(devices, "views")
        self._split = NamedSharding(self._mesh, PartitionSpec("views"))
        whole = NamedSharding(self._mesh, PartitionSpec())
        self._features = jax.jit(method.encode, out_shardings=whole)
        self._read = jax.jit(method.encode_context, out_shardings=whole)
        # One call embeds after several lengths: what comes before the first attention is shared.
        embed = jax.vmap(method.embed, in_axes=(None, None, 0, None, None))
        self._embed = jax.jit(embed, out_shardings=whole)
        self._tell = jax.jit(method.predict, out_shardings=whole)

    def place(self, variables: Variables) -> Variables:
        """Copies variables, the same on all processes, to every device."""
        placed: Variables = replicate_on(variables, self._mesh)
        return placed

    def encode(self, variables: Variables, views: Views) -> np.ndarray:
        """Encodes every view once, [n, V, F]."""

        def run(rows: np.ndarray) -> jax.Array:
            return self._features(variables, *self._shard(views.rows(rows)))

        features: np.ndarray = self._run(run, views.total, "encoding")
        return features.reshape(*views.transform_params.shape[:2], -1)

    def encode_context(
        self,
        variables: Variables,
        features: np.ndarray,
        actions: np.ndarray,
        key: jax.Array | None = None,
    ) -> Any:
        """Reads one context for all queries; see Method.read."""
        return self._read(variables, *replicate_on((features, actions), self._mesh), key)

    def embed(
        self,
        variables: Variables,
        context: Any,
        lengths: Sequence[int],
        features: np.ndarray,
        actions: np.ndarray | None,
    ) -> np.ndarray:
        """Embeds queries after each of C lengths of one context, [C, N, P].

        Args:
          variables: placed.
          context: that was read.
          lengths: tokens of it that are seen.
          features: [N, F].
          actions: [N, A], or None of views alone; see Method.embed.
        """

        def run(rows: np.ndarray) -> jax.Array:
            told = None if actions is None else actions[rows]
            queries = self._shard((features[rows], told))
            return self._embed(variables, context, np.asarray(lengths, np.int32), *queries)

        embeddings: np.ndarray = self._run(run, len(features), "embedding")
        return embeddings

    def predict(self, variables: Variables, embeddings: np.ndarray) -> Predictions:
        """Tells what the method can from embeddings [..., P], by the same leading axes."""
        flat = embeddings.reshape(-1, embeddings.shape[-1])

        def run(rows: np.ndarray) -> Predictions:
            told: Predictions = self._tell(variables, self._shard(flat[rows]))
            return told

        told = self._run(run, len(flat), "telling")
        return jax.tree.map(lambda x: x.reshape(*embeddings.shape[:-1], -1), told)

    def _shard(self, tree: Any) -> Any:
        """Splits this process's share of a batch over its devices."""
        place = functools.partial(jax.make_array_from_process_local_data, self._split)
        return jax.tree.map(place, tree)

    def _run(self, run: Callable[[np.ndarray], Any], n: int, what: str) -> Any:
        """Runs all n rows in batches; the last batch is filled up with its last row.

        Results are trees of [..., n, D]. One is fetched while the devices work on the next batch.
        """
        share = self._batch // jax.process_count()
        own = np.arange(share) + jax.process_index() * share
        chunks: list[Any] = []
        before: Any = None
        starts = range(0, n, self._batch)
        for start in tqdm(starts, desc=what, unit="batch", disable=None, leave=False):
            result = run(np.minimum(start + own, n - 1))
            if start:
                chunks.append(_fetch(before))
            before = result
        chunks.append(_fetch(before))
        return jax.tree.map(lambda *x: np.concatenate(x, axis=-2)[..., :n, :], *chunks)


def _fetch(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), tree)
