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

from contextssl_jax.evaluation.views import Views
from contextssl_jax.methods.base import Method, Variables
from contextssl_jax.parallel import everywhere, mesh_of


class Reader:
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
        self._mesh = mesh_of(devices, "views")
        self._split = NamedSharding(self._mesh, PartitionSpec("views"))
        whole = NamedSharding(self._mesh, PartitionSpec())
        self._features = jax.jit(method.features, out_shardings=whole)
        self._read = jax.jit(method.read, out_shardings=whole)
        # One call embeds after several lengths: what comes before the first attention is shared.
        embed = jax.vmap(method.embed, in_axes=(None, None, 0, None, None))
        self._embed = jax.jit(embed, out_shardings=whole)
        self._predict = jax.jit(method.predict, out_shardings=whole)

    def place(self, variables: Variables) -> Variables:
        """Copies variables, the same on all processes, to every device."""
        placed: Variables = everywhere(variables, self._mesh)
        return placed

    def encode(self, variables: Variables, views: Views) -> np.ndarray:
        """Encodes every view once, [n, V, F]."""

        def run(rows: np.ndarray) -> jax.Array:
            return self._features(variables, *self._shard(views.rows(rows)))

        return self._run(run, views.total, "encoding").reshape(*views.latents.shape[:2], -1)

    def read(
        self,
        variables: Variables,
        features: np.ndarray,
        actions: np.ndarray,
        key: jax.Array | None = None,
    ) -> Any:
        """Reads one context for all queries; see Method.read."""
        return self._read(variables, *everywhere((features, actions), self._mesh), key)

    def embed(
        self,
        variables: Variables,
        context: Any,
        lengths: Sequence[int],
        features: np.ndarray,
        actions: np.ndarray,
    ) -> np.ndarray:
        """Embeds queries [N, F] and [N, A] after each of C lengths of one context, [C, N, P]."""

        def run(rows: np.ndarray) -> jax.Array:
            queries = self._shard((features[rows], actions[rows]))
            return self._embed(variables, context, np.asarray(lengths, np.int32), *queries)

        return self._run(run, len(features), "embedding")

    def predict(self, variables: Variables, embeddings: np.ndarray) -> np.ndarray:
        """Tells standardised latents [..., T] from embeddings [..., P]; see Method.predict."""
        flat = embeddings.reshape(-1, embeddings.shape[-1])

        def run(rows: np.ndarray) -> jax.Array:
            return self._predict(variables, self._shard(flat[rows]))

        return self._run(run, len(flat), "predicting").reshape(*embeddings.shape[:-1], -1)

    def _shard(self, tree: Any) -> Any:
        """Splits this process's share of a batch over its devices."""
        place = functools.partial(jax.make_array_from_process_local_data, self._split)
        return jax.tree.map(place, tree)

    def _run(self, run: Callable[[np.ndarray], jax.Array], n: int, what: str) -> np.ndarray:
        """Runs all n rows in batches, [..., n, D]; the last batch is filled up with its last row.

        A result is fetched while the devices work on the next batch.
        """
        share = self._batch // jax.process_count()
        own = np.arange(share) + jax.process_index() * share
        chunks: list[np.ndarray] = []
        before: jax.Array | None = None
        starts = range(0, n, self._batch)
        for start in tqdm(starts, desc=what, unit="batch", disable=None, leave=False):
            result = run(np.minimum(start + own, n - 1))
            if before is not None:
                chunks.append(np.asarray(before.addressable_data(0)))
            before = result
        assert before is not None
        chunks.append(np.asarray(before.addressable_data(0)))
        return np.concatenate(chunks, axis=-2)[..., :n, :]
