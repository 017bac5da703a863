"""VICReg: invariance, with variance and covariance against collapse (arXiv 2105.04906)."""

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
from contextssl_jax.methods.context_head import choose_heads
from contextssl_jax.methods.heads import Embeddings
from contextssl_jax.methods.view_encoder import build_view_encoder


def vicreg_loss(
    embeddings: Embeddings, weights: ConfigDict, axis: str | None
) -> tuple[jax.Array, Metrics]:
    """Return lambda |x - y|² + mu (var x + var y) / 2 + nu (cov x + cov y), and metrics.

    Args:
      embeddings: x is `predicted`, since no action is used.
      weights: `invariance_weight` (lambda, of the mean over all entries), `variance_weight` (mu)
        and `covariance_weight` (nu).
      axis: name of the axis over devices, or None.
    """
    x, y = embeddings.predicted, embeddings.y
    of_x, of_y = mean_variance_covariance(x, axis), mean_variance_covariance(y, axis)
    invariance = jnp.square(x - y).mean()
    variance = (of_x.variance + of_y.variance) / 2
    covariance = of_x.covariance + of_y.covariance
    loss = (
        weights.invariance_weight * invariance
        + weights.variance_weight * variance
        + weights.covariance_weight * covariance
    )
    metrics = {
        "loss": loss,
        "loss_invariance": invariance,
        "loss_variance": variance,
        "loss_covariance": covariance,
    }
    return loss, mean_over(metrics, axis)


def build(config: ConfigDict, dataset: Dataset, axis: str | None, plus: bool = False) -> Method:
    """Build the method from the sections `model` and `loss`, and with `plus`, `mask`.

    Args:
      config: the options.
      dataset: whose views are rendered.
      axis: name of the axis over devices, or None.
      plus: VICReg⁺ of the paper: the context transformer without actions is the projector.

    Raises:
      UserError: an option has an unknown value.
    """
    space, encoder = method_space(config, dataset.space), build_view_encoder(config, dataset, axis)
    heads = choose_heads(config, space, axis, use_actions=False, plus=plus)

    def loss(
        params: Any, batch_stats: Any, batch: ContextBatch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Metrics]]:
        embedded, statistics = embed_batch(encoder, heads, space, params, batch_stats, batch, key)
        (embeddings,) = embedded.values()
        total, metrics = vicreg_loss(embeddings, config.loss, axis)
        return total, (statistics, metrics)

    return assemble_method(space, encoder, heads, loss)
