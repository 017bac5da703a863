"""SIE: features split into an invariant and an equivariant half (arXiv 2302.10283)."""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from contextssl_jax.data.contexts import ContextBatch
from contextssl_jax.data.dataset import Dataset
from contextssl_jax.distributed.collectives import mean_over
from contextssl_jax.losses import mean_variance_covariance
from contextssl_jax.methods.assembly import assemble_method, embed_batch
from contextssl_jax.methods.base import Method, Metrics, method_space
from contextssl_jax.methods.heads import Embeddings, build_action_projector, build_projector
from contextssl_jax.methods.view_encoder import build_view_encoder


def sie_loss(
    invariant: Embeddings, equivariant: Embeddings, weights: ConfigDict, axis: str | None
) -> tuple[jax.Array, Metrics]:
    """Return SIE's loss of this device, and metrics over all devices.

    lambda |x_i - y_i|² + alpha |rho(a, x_e) - y_e|² + mu (var x + var y + var rho(a, x_e)) / 2
    + nu (cov x + cov y), with x and y the concatenation of both halves.

    Args:
      invariant: of the first half of the features.
      equivariant: of the second half; `predicted` is rho(a, x_e).
      weights: `invariance_weight` (lambda), `equivariance_weight` (alpha), `variance_weight` (mu)
        and `covariance_weight` (nu).
      axis: name of the axis over devices, or None.
    """
    x = jnp.concatenate([invariant.x, equivariant.x], axis=-1)
    y = jnp.concatenate([invariant.y, equivariant.y], axis=-1)
    of_x, of_y = mean_variance_covariance(x, axis), mean_variance_covariance(y, axis)
    of_predicted = mean_variance_covariance(equivariant.predicted, axis)
    terms = {
        "loss_invariance": jnp.square(invariant.x - invariant.y).mean(),
        "loss_equivariance": jnp.square(equivariant.predicted - equivariant.y).mean(),
        "loss_variance": (of_x.variance + of_y.variance + of_predicted.variance) / 2,
        "loss_covariance": of_x.covariance + of_y.covariance,
    }
    loss = (
        weights.invariance_weight * terms["loss_invariance"]
        + weights.equivariance_weight * terms["loss_equivariance"]
        + weights.variance_weight * terms["loss_variance"]
        + weights.covariance_weight * terms["loss_covariance"]
    )
    return loss, mean_over({"loss": loss} | terms, axis)


def build(config: ConfigDict, dataset: Dataset, axis: str | None) -> Method:
    """Build the method from the sections `model` and `loss`.

    Embeddings are those of the equivariant half.

    Raises:
      UserError: an option has an unknown value.
    """
    space, encoder = method_space(config, dataset.space), build_view_encoder(config, dataset, axis)
    heads = {
        "invariant": build_projector(config.model, axis, (0, 2)),
        "equivariant": build_action_projector(config.model, axis, (1, 2)),
    }

    def loss(
        params: Any, batch_stats: Any, batch: ContextBatch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Metrics]]:
        embedded, statistics = embed_batch(encoder, heads, space, params, batch_stats, batch, key)
        total, metrics = sie_loss(embedded["invariant"], embedded["equivariant"], config.loss, axis)
        return total, (statistics, metrics)

    return assemble_method(space, encoder, heads, loss)
