"""Methods whose whole loss is a contrast: of both views, or of a predicted target with its view."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from contextssl_jax.data.contexts import ContextBatch
from contextssl_jax.data.dataset import Dataset
from contextssl_jax.distributed.collectives import mean_over
from contextssl_jax.losses import InfoNCEOutput, build_info_nce, normalize
from contextssl_jax.methods.assembly import assemble_method, embed_batch
from contextssl_jax.methods.base import Method, Metrics, method_space
from contextssl_jax.methods.heads import Embeddings, Head
from contextssl_jax.methods.metrics import info_nce_metrics
from contextssl_jax.methods.view_encoder import build_view_encoder


def contrastive_loss(
    embeddings: Embeddings, info_nce: Callable[[jax.Array], InfoNCEOutput], axis: str | None
) -> tuple[jax.Array, Metrics]:
    """Return InfoNCE between predicted targets and views of this device, and metrics over all.

    Args:
      embeddings: not normalized.
      info_nce: see `build_info_nce`.
      axis: name of the axis over devices, or None.
    """
    output = info_nce(normalize(embeddings.tokens))
    loss = output.loss.mean()
    return loss, mean_over({"loss": loss}, axis) | info_nce_metrics(output, axis)


def build_contrastive(
    config: ConfigDict, dataset: Dataset, axis: str | None, heads: Mapping[str, Head]
) -> Method:
    """Build the method of one head from the sections `model` and `loss`.

    Raises:
      UserError: an option has an unknown value.
    """
    space, encoder = method_space(config, dataset.space), build_view_encoder(config, dataset, axis)
    info_nce = build_info_nce(config.loss, axis)

    def loss(
        params: Any, batch_stats: Any, batch: ContextBatch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Metrics]]:
        embedded, statistics = embed_batch(encoder, heads, space, params, batch_stats, batch, key)
        (embeddings,) = embedded.values()
        total, metrics = contrastive_loss(embeddings, info_nce, axis)
        return total, (statistics, metrics)

    independent = config.loss.negatives == "context"
    return assemble_method(space, encoder, heads, loss, independent_contexts=independent)
