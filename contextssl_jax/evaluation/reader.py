"""A method's forward passes over any number of views, in batches, on all devices of all processes.

All batches have the same shape, so that each pass is compiled once; the last one is padded. Every
process calls the same passes in the same order, computes its part of each batch, and receives the
whole result.
"""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from contextssl_jax.distributed.parallel import make_mesh, replicate_on
from contextssl_jax.evaluation.views import Views
from contextssl_jax.methods.base import Method, Predictions, Variables
from contextssl_jax.progress import track


def never_stop() -> None:
    """Do nothing: the `check_stop` of an evaluation that cannot be interrupted."""


class ForwardPasses:
    """Encodes views and contexts, and embeds queries. Results are float32 arrays on the host."""

    _check_stop: Callable[[], None] = staticmethod(never_stop)

    def __init__(self, method: Method, batch: int) -> None:
        """Define the passes; each is compiled at its first call.

        Args:
          method: the method to evaluate.
          batch: views per batch over all devices; rounded up to a multiple of their number.
        """
        devices = jax.devices()
        self._batch = -(-batch // len(devices)) * len(devices)
        self._mesh = make_mesh(devices, "views")
        self._split = NamedSharding(self._mesh, PartitionSpec("views"))
        replicated = NamedSharding(self._mesh, PartitionSpec())
        self._features = jax.jit(method.encode, out_shardings=replicated)
        self._encode_context = jax.jit(method.encode_context, out_shardings=replicated)
        # One call embeds after several lengths: layers before the first attention are shared.
        embed = jax.vmap(method.embed, in_axes=(None, None, 0, None, None))
        self._embed = jax.jit(embed, out_shardings=replicated)
        self._predict = jax.jit(method.predict, out_shardings=replicated)

    def interruptible(self, check_stop: Callable[[], None]) -> "ForwardPasses":
        """Return the same passes, which call `check_stop` before every batch."""
        passes = copy.copy(self)
        passes._check_stop = check_stop
        return passes

    def place(self, variables: Variables) -> Variables:
        """Copy variables, equal on all processes, to every device."""
        placed: Variables = replicate_on(variables, self._mesh)
        return placed

    def encode(self, variables: Variables, views: Views) -> np.ndarray:
        """Encode every view once, [n, V, F]."""

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
        """Encode one context for all queries; see Method.encode_context."""
        return self._encode_context(variables, *replicate_on((features, actions), self._mesh), key)

    def embed(
        self,
        variables: Variables,
        context: Any,
        lengths: Sequence[int],
        features: np.ndarray,
        actions: np.ndarray | None,
    ) -> np.ndarray:
        """Embed queries after each of C lengths of one context, [C, N, P].

        Args:
          variables: placed.
          context: the encoded context.
          lengths: tokens of it that queries attend to.
          features: [N, F].
          actions: [N, A], or None for view embeddings; see Method.embed.
        """

        def run(rows: np.ndarray) -> jax.Array:
            batch_actions = None if actions is None else actions[rows]
            queries = self._shard((features[rows], batch_actions))
            return self._embed(variables, context, np.asarray(lengths, np.int32), *queries)

        embeddings: np.ndarray = self._run(run, len(features), "embedding")
        return embeddings

    def predict(self, variables: Variables, embeddings: np.ndarray) -> Predictions:
        """Return the method's predictions from embeddings [..., P], with the same leading axes."""
        flat = embeddings.reshape(-1, embeddings.shape[-1])

        def run(rows: np.ndarray) -> Predictions:
            predictions: Predictions = self._predict(variables, self._shard(flat[rows]))
            return predictions

        predictions = self._run(run, len(flat), "predicting")
        return jax.tree.map(lambda x: x.reshape(*embeddings.shape[:-1], -1), predictions)

    def _shard(self, tree: Any) -> Any:
        """Split this process's part of a batch over its devices."""
        place = functools.partial(jax.make_array_from_process_local_data, self._split)
        return jax.tree.map(place, tree)

    def _run(self, run: Callable[[np.ndarray], Any], n: int, description: str) -> Any:
        """Run all n rows in batches; the last batch is padded with its last row.

        Results are trees of [..., n, D], each fetched while the devices compute the next batch.
        """
        size = self._batch // jax.process_count()
        own = np.arange(size) + jax.process_index() * size
        chunks: list[Any] = []
        previous: Any = None
        starts = range(0, n, self._batch)
        try:
            for start in track(starts, description, "batches"):
                self._check_stop()
                result = run(np.minimum(start + own, n - 1))
                if start:
                    chunks.append(_fetch(previous))
                previous = result
        finally:  # a stop leaves no collective in flight
            jax.block_until_ready(previous)
        chunks.append(_fetch(previous))
        return jax.tree.map(lambda *x: np.concatenate(x, axis=-2)[..., :n, :], *chunks)


def _fetch(tree: Any) -> Any:
    def fetch(leaf: jax.Array) -> np.ndarray:
        # Replicated over all processes; with JAX_DISABLE_JIT, split over the devices of one.
        return np.asarray(leaf if leaf.is_fully_addressable else leaf.addressable_data(0))

    return jax.tree.map(fetch, tree)
