"""Methods that embed two views by one or two heads, and differ in what they ask of embeddings."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from contextssl_jax.data.contexts import ContextBatch
from contextssl_jax.data.dataset import Record
from contextssl_jax.losses import normalize
from contextssl_jax.methods.backbone import Backbone
from contextssl_jax.methods.base import Metrics, Predictions, Variables, mask_actions
from contextssl_jax.methods.heads import Head, Projected
from contextssl_jax.transforms import ParameterSpace


@dataclass(frozen=True, kw_only=True)
class Siamese(ABC):
    """A method up to its objective; see Method for the functions.

    Attributes:
      space: of the latents.
      backbone: renders and encodes.
      heads: by name; the last one's outputs are the embeddings.
      axis: name of the axis over devices, or None.
      readouts: what tells something from embeddings of length 1, by name.
    """

    space: ParameterSpace
    backbone: Backbone
    heads: Mapping[str, Head]
    axis: str | None
    readouts: Mapping[str, nn.Module] = field(default_factory=dict)

    @abstractmethod
    def objective(
        self, params: Any, projected: Mapping[str, Projected], batch: ContextBatch
    ) -> tuple[jax.Array, Metrics]:
        """Returns the loss of this device, and metrics over all devices.

        Args:
          params: of the whole method.
          projected: what each head makes of the batch.
          batch: the batch.
        """

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """See Method."""
        heads = {name: head.module for name, head in self.heads.items()}
        return {"encoder": self.backbone.encoder, **heads, **self.readouts}

    @property
    def uses_context(self) -> bool:
        """See Method."""
        return self._embedding[1].uses_context

    def init(self, key: jax.Array, batch: ContextBatch) -> Variables:
        """See Method."""
        keys = dict(zip(self.modules, jax.random.split(key, len(self.modules)), strict=True))
        features, encoder = self.backbone.init(keys["encoder"], batch)
        actions = jnp.zeros((1, len(self.space.action_mean)))
        parts = {"encoder": encoder} | {
            name: head.init(keys[name], features, actions) for name, head in self.heads.items()
        }
        h = jnp.zeros((1, self._embedding[1].outputs))
        parts |= {n: dict(module.init(keys[n], h)) for n, module in self.readouts.items()}
        return {
            "params": {name: part["params"] for name, part in parts.items()},
            "batch_stats": {
                name: part["batch_stats"] for name, part in parts.items() if "batch_stats" in part
            },
        }

    def loss(
        self, params: Any, batch_stats: Any, batch: ContextBatch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Metrics]]:
        """See Method."""
        statistics: dict[str, Any] = {}
        features, statistics["encoder"] = self.backbone.encode_pairs(
            params["encoder"], batch_stats.get("encoder", {}), batch
        )
        actions = mask_actions(
            self.space.actions(batch.transform_params[:, :, 0], batch.transform_params[:, :, 1])[
                :, None
            ],
            batch.environments[:, :, None],
            self.space.action_group_ids,
        )
        projected = {}
        for name, head in self.heads.items():
            own = _part({"params": params, "batch_stats": batch_stats}, name)
            projected[name], statistics[name] = head.project(
                own, features, actions, batch.position, key
            )
        loss, metrics = self.objective(params, projected, batch)
        kept = {name: statistics[name] for name in batch_stats}
        return loss, (kept, metrics)

    def encode(
        self, variables: Variables, record: Record, transform_params: jax.Array
    ) -> jax.Array:
        """See Method."""
        own = _part(variables, "encoder")
        return self.backbone.encode(own["params"], own["batch_stats"], record, transform_params)

    def encode_context(
        self,
        variables: Variables,
        features: jax.Array,
        actions: jax.Array,
        key: jax.Array | None = None,
    ) -> Any:
        """See Method."""
        name, head = self._embedding
        return head.encode_context(_part(variables, name), features, actions, key)

    def embed(
        self,
        variables: Variables,
        context: Any,
        length: jax.Array | int,
        features: jax.Array,
        actions: jax.Array | None,
    ) -> jax.Array:
        """See Method."""
        name, head = self._embedding
        return normalize(head.embed(_part(variables, name), context, length, features, actions))

    def predict(self, variables: Variables, embeddings: jax.Array) -> Predictions:
        """Tells nothing."""
        del variables, embeddings
        return Predictions()

    def target_classes(self, labels: np.ndarray, shown: np.ndarray) -> np.ndarray:
        """See Method: the labels themselves."""
        del shown
        return labels

    @property
    def _embedding(self) -> tuple[str, Head]:
        return list(self.heads.items())[-1]


def _part(variables: Variables, name: str) -> Variables:
    """Returns the variables of one part."""
    return {
        "params": variables["params"][name],
        "batch_stats": variables["batch_stats"].get(name, {}),
    }
