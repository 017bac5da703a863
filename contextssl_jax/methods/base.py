"""The interface between a method and everything that trains, saves and evaluates it."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import numpy as np

from contextssl_jax.data.contexts import ContextBatch
from contextssl_jax.data.dataset import Record
from contextssl_jax.transforms import ParameterSpace

Variables = dict[str, Any]  # {"params": ..., "batch_stats": ...}, both pytrees of float32 arrays
Metrics = dict[str, jax.Array]
Array = Any  # NumPy on the host, JAX on the device


class Predictions(NamedTuple):
    """What a method tells from embeddings, without any probe; None where it does not."""

    transform_params: Array = None  # standardised, float32 [N, T]
    classes: Array = None  # logits, float32 [N, C]


class Method(Protocol):
    """A self-supervised method as pure functions of its variables.

    Letters of shapes: B contexts on this device, E environments that each is read in, K pairs,
    N views, T and A entries of latents and actions, G groups, F features, P embedding entries.
    """

    @property
    def space(self) -> ParameterSpace:
        """The space of the latents that the method tells and is told."""

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The Flax modules of the parts that the parameters are divided into, by the parts."""

    @property
    def uses_context(self) -> bool:
        """Whether embeddings depend on a context; of others only length 0 has a meaning."""

    def init(self, key: jax.Array, batch: ContextBatch) -> Variables:
        """Draws the initial variables; the batch gives the shapes."""

    def loss(
        self, params: Any, batch_stats: Any, batch: ContextBatch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Metrics]]:
        """Returns this device's loss, the new batch statistics, and metrics over all devices.

        The mean of the loss over devices is what is minimised. A metric that a batch cannot tell
        is NaN.
        """

    def encode(
        self, variables: Variables, record: Record, transform_params: jax.Array
    ) -> jax.Array:
        """Encodes views: record leaves [N, ...], latents [N, T + nuisances] -> [N, F]."""

    def encode_context(
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
        actions: jax.Array | None,
    ) -> jax.Array:
        """Embeds single views, each after `length` tokens of the context.

        Args:
          variables: of the method.
          context: that was read; None where none was, and length is 0.
          length: tokens of it that are seen.
          features: [N, F].
          actions: standardised, those of hidden groups 0, [N, A]: the views that these lead to are
            asked for (z_r). None: the views themselves (z⁺).

        Returns:
          Embeddings of length 1, float32 [N, P].
        """

    def predict(self, variables: Variables, embeddings: jax.Array) -> Predictions:
        """Tells what it can from embeddings [N, P]."""

    def target_classes(self, labels: np.ndarray, shown: np.ndarray) -> np.ndarray:
        """Returns the classes to be told of labels [n] in an environment, bool [G]."""


def mask_actions(actions: Array, shown: Array, owner: np.ndarray) -> Array:
    """Zeroes the entries of actions [..., A] whose group is not shown, bool [..., G]."""
    return actions * shown[..., owner]
