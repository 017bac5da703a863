"""EquiMod: SimCLR with an equivariant head beside the invariant one (arXiv 2211.01244).

In the form of SIE's comparison (arXiv 2302.10283): two projectors on one encoder, and the action
relates the two views instead of each view and the untransformed image.
"""

from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from contextssl_jax.data.contexts import ContextBatch
from contextssl_jax.data.dataset import Dataset
from contextssl_jax.distributed.collectives import mean_over
from contextssl_jax.losses import InfoNCEOutput, build_info_nce, normalize
from contextssl_jax.methods.assembly import assemble_method, embed_batch
from contextssl_jax.methods.base import Method, Metrics, method_space
from contextssl_jax.methods.context_head import choose_heads
from contextssl_jax.methods.heads import Embeddings, build_projector
from contextssl_jax.methods.metrics import info_nce_metrics
from contextssl_jax.methods.view_encoder import build_view_encoder


def equimod_loss(
    invariant: Embeddings,
    equivariant: Embeddings,
    weight: float,
    info_nce: Callable[[jax.Array], InfoNCEOutput],
    axis: str | None,
) -> tuple[jax.Array, Metrics]:
    """Return NT-Xent of the invariant head plus alpha times the equivariant one's, and metrics.

    Args:
      invariant: of the head without actions.
      equivariant: of the head with actions.
      weight: alpha.
      info_nce: see `build_info_nce`.
      axis: name of the axis over devices, or None.
    """
    output = info_nce(normalize(invariant.tokens))
    loss_equivariant = info_nce(normalize(equivariant.tokens)).loss.mean()
    loss = output.loss.mean() + weight * loss_equivariant
    metrics = mean_over({"loss": loss, "loss_equivariant": loss_equivariant}, axis)
    return loss, metrics | info_nce_metrics(output, axis)


def build(config: ConfigDict, dataset: Dataset, axis: str | None, plus: bool = False) -> Method:
    """Build the method from the sections `model` and `loss`, and with `plus`, `mask`.

    Args:
      config: the options.
      dataset: whose views are rendered and whose actions are used.
      axis: name of the axis over devices, or None.
      plus: EquiMod⁺ of the paper: the context transformer is the equivariant head.

    Raises:
      UserError: an option has an unknown value.
    """
    space, encoder = method_space(config, dataset.space), build_view_encoder(config, dataset, axis)
    heads = {
        "projector": build_projector(config.model, axis),
        **choose_heads(config, space, axis, use_actions=True, plus=plus),
    }
    info_nce = build_info_nce(config.loss, axis)

    def loss(
        params: Any, batch_stats: Any, batch: ContextBatch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Metrics]]:
        embedded, statistics = embed_batch(encoder, heads, space, params, batch_stats, batch, key)
        invariant, equivariant = embedded.values()
        weight = config.loss.equivariance_weight
        total, metrics = equimod_loss(invariant, equivariant, weight, info_nce, axis)
        return total, (statistics, metrics)

    independent = config.loss.negatives == "context"
    return assemble_method(space, encoder, heads, loss, independent_contexts=independent)
