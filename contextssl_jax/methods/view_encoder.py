"""The first part of every method: render views and encode them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from contextssl_jax.data.contexts import ContextBatch
from contextssl_jax.data.dataset import Dataset, Record
from contextssl_jax.errors import lookup
from contextssl_jax.models import ENCODERS


@dataclass(frozen=True)
class ViewEncoder:
    """The encoder and the data set's rendering; letters of shapes as in methods/base.py.

    Attributes:
      module: the Flax module from images [N, H, W, 3] to features [N, F].
      render: the data set's; see `Dataset`.
    """

    module: nn.Module
    render: Callable[[Record, jax.Array], jax.Array]

    def init(self, key: jax.Array, batch: ContextBatch) -> tuple[jax.Array, dict[str, Any]]:
        """Return the features of one view, [1, F], and the encoder's initial variables."""
        record = jax.tree.map(lambda leaf: leaf[:1, :1, 0], batch.record)
        views = self.render(*_flat((record, batch.transform_params[:1, :1, 0]), 2))
        features: Any
        features, variables = self.module.init_with_output(key, views, train=False)
        return features, dict(variables)

    def encode_pairs(
        self, params: Any, batch_stats: Any, batch: ContextBatch
    ) -> tuple[jax.Array, Any]:
        """Encode both views of every pair for training.

        One call encodes both views, so they share one set of batch statistics.

        Returns:
          Features [B, K, 2, F], and the new batch statistics.
        """
        b, k = batch.transform_params.shape[:2]
        record = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (b, k, 2, *leaf.shape[3:])), batch.record
        )
        features, updated = self.module.apply(
            {"params": params, "batch_stats": batch_stats},
            self.render(*_flat((record, batch.transform_params), 3)),
            train=True,
            mutable=["batch_stats"],
        )
        return features.reshape(b, k, 2, -1), updated.get("batch_stats", {})

    def encode(
        self, params: Any, batch_stats: Any, record: Record, transform_params: jax.Array
    ) -> jax.Array:
        """Encode views for evaluation, [N, F]; see `Method`."""
        variables = {"params": params, "batch_stats": batch_stats}
        features: Any = self.module.apply(
            variables, self.render(record, transform_params), train=False
        )
        return features


def build_view_encoder(config: ConfigDict, dataset: Dataset, axis: str | None) -> ViewEncoder:
    """Build the encoder from the section `model`.

    Raises:
      UserError: an option has an unknown value.
    """
    model = config.model
    return ViewEncoder(
        lookup(ENCODERS, model.encoder, "--config.model.encoder")(model, axis), dataset.render
    )


def _flat(tree: Any, axes: int) -> Any:
    """Merge the leading axes of every leaf."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[axes:]), tree)
