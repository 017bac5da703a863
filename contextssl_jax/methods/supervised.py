"""Supervised labels that depend on the context (paper, Section 4.6 and Table 5).

The transformer tells each record's label, to which a constant is added where the context shows one
group. A view without an action does not say which environment it is in; only its context does. The
latent predictor stays beside: the paper's Table 5 has R² of the groups follow the context, and
nothing in the labels would ask for that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from contextssl_jax.data.contexts import ContextBatch
from contextssl_jax.data.dataset import Dataset
from contextssl_jax.distributed.collectives import mean_over
from contextssl_jax.errors import UserError
from contextssl_jax.losses import normalize
from contextssl_jax.methods.backbone import build_backbone
from contextssl_jax.methods.base import Metrics, Predictions, Variables
from contextssl_jax.methods.heads import Projected
from contextssl_jax.methods.predicting import Predicting, build_predictor
from contextssl_jax.methods.sen import equivariant_head


@dataclass(frozen=True, kw_only=True)
class Supervised(Predicting):
    """Cross-entropy of all tokens' classes + lambda times the latent predictor's error.

    Attributes:
      shifting: the group whose contexts shift labels, bool [G].
      shift: constant that is added.
      temperature: that logits are divided by.
    """

    shifting: np.ndarray
    shift: int
    temperature: float

    def objective(
        self, params: Any, projected: Mapping[str, Projected], batch: ContextBatch
    ) -> tuple[jax.Array, Metrics]:
        """See Siamese."""
        h = normalize(projected["transformer"].tokens)
        logits = self._logits(params, h)
        shown = (batch.environments & self.shifting).any(axis=-1)[:, :, None]
        labels = jnp.repeat(batch.labels, 2, axis=1)[:, None] + self.shift * shown
        errors = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        prediction, told = self.prediction(params, h, batch)
        loss = errors + self.predictor_weight * prediction
        correct = (logits.argmax(axis=-1) == labels).mean()
        metrics = {"loss": loss, "loss_labels": errors, "label_accuracy": correct}
        return loss, mean_over(metrics, self.axis) | told

    def predict(self, variables: Variables, embeddings: jax.Array) -> Predictions:
        """See Method: latents and classes."""
        classes = self._logits(variables["params"], embeddings)
        return super().predict(variables, embeddings)._replace(classes=classes)

    def target_classes(self, labels: np.ndarray, shown: np.ndarray) -> np.ndarray:
        """See Method: shifted where the environment shows the group."""
        return labels + self.shift * bool((shown & self.shifting).any())

    def _logits(self, params: Any, h: jax.Array) -> jax.Array:
        logits: Any = self.readouts["classifier"].apply({"params": params["classifier"]}, h)
        return logits.astype(jnp.float32) / self.temperature


def build(config: ConfigDict, dataset: Dataset, axis: str | None) -> Supervised:
    """Builds the method from the sections `model`, `loss`, `mask` and `supervised`.

    Raises:
      UserError: an option has none of its possible values, or the data has no labels.
    """
    options, labels = config.supervised, dataset.splits["train"].labels
    if labels is None:
        raise UserError(f"method: supervised needs labels, and {dataset.name} has none")
    if options.group not in dataset.space.names:
        raise UserError(
            f"supervised.group: {options.group!r} is none of the groups {dataset.space.names}"
        )
    classifier = nn.Dense(int(labels.max()) + 1 + options.shift)
    return Supervised(
        space=dataset.space,
        backbone=build_backbone(config, dataset, axis),
        heads=equivariant_head(config, dataset, axis, plus=True),
        axis=axis,
        readouts={"predictor": build_predictor(config, dataset), "classifier": classifier},
        predictor_weight=config.loss.predictor_weight,
        shifting=np.asarray([name == options.group for name in dataset.space.names]),
        shift=options.shift,
        temperature=config.loss.temperature,
    )
