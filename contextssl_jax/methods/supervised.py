"""Supervised labels that depend on the context (paper, Section 4.6 and Table 5).

The transformer predicts each record's label, to which a constant is added where the context
observes one group. A view without an action does not identify its environment; only its context
does. The predictor of transform parameters (Eq. 3) is trained too: in the paper's Table 5 the R² of
the groups follows the context, for which labels alone give no reason.
"""

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
from contextssl_jax.losses import normalize, parameter_errors, predictor_loss
from contextssl_jax.methods.assembly import assemble_method, embed_batch
from contextssl_jax.methods.base import Method, Metrics, Predictions, Variables, method_space
from contextssl_jax.methods.context_head import build_context_head
from contextssl_jax.methods.metrics import predictor_metrics
from contextssl_jax.methods.view_encoder import build_view_encoder
from contextssl_jax.models.predictor import build_predictor


def label_loss(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, Metrics]:
    """Return the mean cross-entropy of logits [..., C] and labels int [...], and metrics."""
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    correct = (logits.argmax(axis=-1) == labels).mean()
    return loss, {"loss_labels": loss, "label_accuracy": correct}


def build(config: ConfigDict, dataset: Dataset, axis: str | None) -> Method:
    """Build the method from the sections `model`, `loss`, `mask` and `supervised`.

    Raises:
      UserError: an option has an unknown value, or the data set has no labels.
    """
    space, options = method_space(config, dataset.space), config.supervised
    if not dataset.classes:
        raise UserError(
            f"--config.method: supervised needs labels, which {dataset.name} does not have. Choose"
            " another method or --config.data.name."
        )
    if options.group not in space.names:
        raise UserError(
            f"--config.supervised.group: {options.group!r} is none of the groups {space.names}."
            " Choose one of them."
        )
    encoder = build_view_encoder(config, dataset, axis)
    heads = {"transformer": build_context_head(config, space, use_actions=True)}
    predictor = build_predictor(config.model, len(space.param_mean))
    classifier = nn.Dense(dataset.classes + options.shift)
    deviations = dataset.space.deviations(space)  # in the predictor's units
    shifting = np.asarray([name == options.group for name in space.names])

    def logits_of(params: Any, h: jax.Array) -> jax.Array:
        logits: Any = classifier.apply({"params": params["classifier"]}, h)
        return logits.astype(jnp.float32) / config.loss.temperature

    def loss(
        params: Any, batch_stats: Any, batch: ContextBatch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Metrics]]:
        embedded, statistics = embed_batch(encoder, heads, space, params, batch_stats, batch, key)
        h = normalize(embedded["transformer"].tokens)
        shifted = (batch.environments & shifting).any(axis=-1)[:, :, None]
        targets = jnp.repeat(batch.labels, 2, axis=1)[:, None] + options.shift * shifted
        classification, metrics = label_loss(logits_of(params, h), targets)
        predicted: Any = predictor.apply({"params": params["predictor"]}, h)
        target = space.standardize(batch.transform_params[:, :, 1])
        errors = parameter_errors(predicted, target, space.param_group_ids)
        prediction = predictor_loss(errors, batch.environments)
        total = classification + config.loss.predictor_weight * prediction
        metrics = mean_over({"loss": total} | metrics, axis)
        errors = parameter_errors(predicted, target, space.param_group_ids, deviations)
        metrics |= predictor_metrics(prediction, errors, batch.environments, space.names, axis)
        return total, (statistics, metrics)

    def predict(variables: Variables, embeddings: jax.Array) -> Predictions:
        params = variables["params"]
        parameters: Any = predictor.apply({"params": params["predictor"]}, embeddings)
        return Predictions(parameters, logits_of(params, embeddings))

    def target_classes(labels: np.ndarray, observed: np.ndarray) -> np.ndarray:
        return labels + options.shift * bool((observed & shifting).any())

    return assemble_method(
        space,
        encoder,
        heads,
        loss,
        readouts={"predictor": predictor, "classifier": classifier},
        predict=predict,
        target_classes=target_classes,
        independent_contexts=True,
    )
