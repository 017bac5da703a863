"""Methods that align the two views of a pair by InfoNCE; SimCLR and SEN are this and a head."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
from ml_collections import ConfigDict

from contextssl_jax.data.contexts import ContextBatch
from contextssl_jax.data.dataset import Dataset
from contextssl_jax.distributed.collectives import mean_over
from contextssl_jax.errors import UserError
from contextssl_jax.losses import InfoNCEOutput, info_nce_batch, info_nce_context, normalize
from contextssl_jax.methods.backbone import build_backbone
from contextssl_jax.methods.base import Metrics
from contextssl_jax.methods.diagnostics import early_late_ratio
from contextssl_jax.methods.heads import Head, Projected
from contextssl_jax.methods.siamese import Siamese

Align = Callable[[jax.Array], InfoNCEOutput]  # from embeddings of length 1, [B, E, 2K, P]


@dataclass(frozen=True, kw_only=True)
class Contrastive(Siamese):
    """InfoNCE between the asked x and y of the one head; see Siamese.

    Attributes:
      align: InfoNCE.
    """

    align: Align

    def objective(
        self, params: Any, projected: Mapping[str, Projected], batch: ContextBatch
    ) -> tuple[jax.Array, Metrics]:
        """See Siamese."""
        del params, batch
        (one,) = projected.values()
        aligned = self.align(normalize(one.tokens))
        loss = aligned.loss.mean()
        metrics = mean_over({"loss": loss}, self.axis) | alignment_metrics(aligned, self.axis)
        return loss, metrics


def alignment_metrics(aligned: InfoNCEOutput, axis: str | None) -> Metrics:
    """Returns what InfoNCE tells of a batch, over all devices."""
    metrics = mean_over(
        {
            "loss_contrastive": aligned.loss.mean(),
            "alignment_accuracy": aligned.correct.mean(),
            "similarity_positive": aligned.positive.mean(),
            "similarity_negative": aligned.negative.mean(),
        },
        axis,
    )
    return metrics | {"early_late": early_late_ratio(aligned.loss, axis)}


def build_contrastive(
    config: ConfigDict, dataset: Dataset, axis: str | None, head: Mapping[str, Head]
) -> Contrastive:
    """Builds the method of one head, by its name, from the sections `model` and `loss`.

    Raises:
      UserError: an option has none of its possible values.
    """
    return Contrastive(
        space=dataset.space,
        backbone=build_backbone(config, dataset, axis),
        heads=head,
        axis=axis,
        align=build_align(config.loss, axis),
    )


def build_align(loss: ConfigDict, axis: str | None) -> Align:
    """Builds InfoNCE from the section `loss`.

    Raises:
      UserError: negatives are from neither the batch nor the context.
    """
    if loss.negatives not in ("batch", "context"):
        raise UserError(f"loss.negatives: {loss.negatives!r} is neither 'batch' nor 'context'")

    def align(h: jax.Array) -> InfoNCEOutput:
        options = dict(temperature=loss.temperature, clamp=loss.clamp)
        if loss.negatives == "batch":
            return info_nce_batch(h, **options, axis=axis)
        return info_nce_context(h, **options)

    return align
