"""A method's forward passes over any number of views, in batches, on this process's devices.

Every batch has the same shape, so that each pass is compiled once; what the last one lacks is
filled up and cut off again.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from tqdm import tqdm

from contextssl_jax.evaluation.views import Views
from contextssl_jax.methods.base import Method, Variables


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
        devices = jax.local_devices()
        mesh = jax.make_mesh(
            (len(devices),), ("views",), axis_types=(AxisType.Auto,), devices=devices
        )
        self._batch = -(-batch // len(devices)) * len(devices)
        self._split = NamedSharding(mesh, PartitionSpec("views"))
        self._whole = NamedSharding(mesh, PartitionSpec())
        self._features = jax.jit(method.features)
        self._read = jax.jit(method.read)
        # One call embeds after several lengths: what comes before the first attention is shared.
        self._embed = jax.jit(jax.vmap(method.embed, in_axes=(None, None, 0, None, None)))
        self._predict = jax.jit(method.predict)

    def place(self, variables: Variables) -> Variables:
        """Copies variables to every device."""
        placed: Variables = jax.device_put(variables, self._whole)
        return placed

    def encode(self, variables: Variables, views: Views) -> np.ndarray:
        """Encodes every view once, [n, V, F]."""

        def run(rows: np.ndarray) -> jax.Array:
            return self._features(variables, *jax.device_put(views.rows(rows), self._split))

        return self._run(run, views.total, "encoding").reshape(*views.latents.shape[:2], -1)

    def read(
        self,
        variables: Variables,
        features: np.ndarray,
        actions: np.ndarray,
        key: jax.Array | None = None,
    ) -> Any:
        """Reads one context for all queries; see Method.read."""
        return self._read(variables, *jax.device_put((features, actions), self._whole), key)

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
            queries = jax.device_put((features[rows], actions[rows]), self._split)
            return self._embed(variables, context, np.asarray(lengths, np.int32), *queries)

        return self._run(run, len(features), "embedding")

    def predict(self, variables: Variables, embeddings: np.ndarray) -> np.ndarray:
        """Tells standardised latents [..., T] from embeddings [..., P]; see Method.predict."""
        flat = embeddings.reshape(-1, embeddings.shape[-1])

        def run(rows: np.ndarray) -> jax.Array:
            return self._predict(variables, jax.device_put(flat[rows], self._split))

        return self._run(run, len(flat), "predicting").reshape(*embeddings.shape[:-1], -1)

    def _run(self, run: Callable[[np.ndarray], jax.Array], n: int, what: str) -> np.ndarray:
        """Runs all n rows in batches, [..., n, D]; the last batch is filled up with its last row.

        A result is fetched while the devices work on the next batch.
        """
        starts = range(0, n, self._batch)
        chunks: list[np.ndarray] = []
        before: jax.Array | None = None
        for start in tqdm(starts, desc=what, unit="batch", disable=None, leave=False):
            result = run(np.minimum(np.arange(start, start + self._batch), n - 1))
            if before is not None:
                chunks.append(np.asarray(before))
            before = result
        return np.concatenate([*chunks, np.asarray(before)], axis=-2)[..., :n, :]
