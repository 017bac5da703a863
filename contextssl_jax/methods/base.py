"""The interface between a method and everything that trains, saves and evaluates it."""

from typing import Any, Protocol

import jax
import numpy as np

from contextssl_jax.data.contexts import ContextBatch
from contextssl_jax.data.dataset import Record
from contextssl_jax.groups import LatentSpace

Variables = dict[str, Any]  # {"params": ..., "batch_stats": ...}, both pytrees of float32 arrays
Metrics = dict[str, jax.Array]
Array = Any  # NumPy on the host, JAX on the device


class Method(Protocol):
    """A self-supervised method as pure functions of its variables.

    Letters of shapes: B contexts on this device, E environments that each is read in, K pairs,
    N views, T and A entries of latents and actions, G groups, F features, P embedding entries.
    """

    @property
    def space(self) -> LatentSpace:
        """The space of the latents that the method tells and is told."""

    def init(self, key: jax.Array, batch: ContextBatch) -> Variables:
        """Draws the initial variables; the batch gives the shapes."""

    def loss(
        self, params: Any, batch_stats: Any, batch: ContextBatch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Metrics]]:
        """Returns this device's loss, the new batch statistics, and metrics over all devices.

        The mean of the loss over devices is what is minimised. A metric that a batch cannot tell
        is NaN.
        """

    def features(self, variables: Variables, record: Record, latents: jax.Array) -> jax.Array:
        """Encodes views: record leaves [N, ...], latents [N, T + nuisances] -> [N, F]."""

    def read(
        self,
        variables: Variables,
        features: jax.Array,
        actions: jax.Array,
        key: jax.Array | None = None,
    ) -> Any:
        """Reads a context once; the result serves `embed` for every prefix of it.

        Args:
          variables: of the method.
          features: of K pairs of views, [K, 2, F].
          actions: standardised, those of hidden groups 0, [K, A].
          key: where given, the context is seen as sparsely as in training, by masks drawn from the
            key: 2 K tokens are then not more than the model has met. Else all of it is seen.
        """

    def embed(
        self,
        variables: Variables,
        context: Any,
        length: jax.Array | int,
        features: jax.Array,
        actions: jax.Array,
    ) -> jax.Array:
        """Embeds single tokens [N, F] and [N, A], each after `length` tokens of the context.

        Returns:
          Embeddings of length 1, float32 [N, P].
        """

    def predict(self, variables: Variables, embeddings: jax.Array) -> jax.Array:
        """Tells standardised latents [N, T] from embeddings [N, P]."""


def hide(actions: Array, shown: Array, owner: np.ndarray) -> Array:
    """Zeroes the entries of actions [..., A] whose group is not shown, bool [..., G]."""
    return actions * shown[..., owner]
