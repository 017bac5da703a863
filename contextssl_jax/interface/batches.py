"""Run a function over any number of rows, in batches of few shapes, on all local devices."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_GROWTH = 4  # ratio of neighboring batch sizes
_SMALLEST = 16  # rows of the smallest batch on one device


class Batches:
    """Splits rows over batches and devices. Each batch size is compiled once."""

    def __init__(self, largest: int) -> None:
        """Define the batch sizes.

        Args:
          largest: rows of the largest batch over all local devices; rounded up to a multiple of
            their number.
        """
        devices = jax.local_devices()
        self._mesh = Mesh(np.asarray(devices), ("rows",))
        self._rows = NamedSharding(self._mesh, PartitionSpec("rows"))
        largest = -(-largest // len(devices)) * len(devices)
        self._sizes = [largest]
        while self._sizes[0] > _SMALLEST * len(devices):
            smaller = -(-self._sizes[0] // _GROWTH)
            self._sizes.insert(0, -(-smaller // len(devices)) * len(devices))

    def replicate(self, tree: Any) -> Any:
        """Copy a tree of arrays to all local devices."""
        return jax.device_put(tree, NamedSharding(self._mesh, PartitionSpec()))

    def map(self, function: Callable[..., Any], *rows: np.ndarray | None) -> Any:
        """Apply a jitted function to arrays [N, ...] in batches.

        Args:
          function: from batches of the arrays to a tree of arrays with the same rows.
          rows: arrays of the same N > 0; None stays None.

        Returns:
          The function's tree of NumPy arrays [N, ...].
        """
        n = next(len(array) for array in rows if array is not None)
        size = next((size for size in self._sizes if size >= n), self._sizes[-1])
        chunks, previous = [], None
        for start in range(0, n, size):
            result = function(*(self._place(array, start, size) for array in rows))
            if start:
                chunks.append(jax.device_get(previous))  # while the devices compute this batch
            previous = result
        chunks.append(jax.device_get(previous))
        return jax.tree.map(lambda *parts: np.concatenate(parts)[:n], *chunks)

    def _place(self, array: np.ndarray | None, start: int, size: int) -> jax.Array | None:
        """Copy a batch to the devices; the last one is padded with zeros."""
        if array is None:
            return None
        batch = array[start : start + size]
        if len(batch) < size:
            batch = np.pad(batch, [(0, size - len(batch)), *[(0, 0)] * (array.ndim - 1)])
        return jax.device_put(batch, self._rows)
