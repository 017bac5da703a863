"""ContextSSL: one model whose symmetries are set by the context it reads (paper, Section 3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from ml_collections import ConfigDict

from contextssl_jax.data.contexts import ContextBatch
from contextssl_jax.data.dataset import Dataset
from contextssl_jax.distributed.collectives import mean_over
from contextssl_jax.losses import normalize
from contextssl_jax.methods.backbone import build_backbone
from contextssl_jax.methods.base import Metrics
from contextssl_jax.methods.contrastive import Align, alignment_metrics, build_align
from contextssl_jax.methods.heads import Projected
from contextssl_jax.methods.predicting import Predicting, build_predictor
from contextssl_jax.methods.sen import equivariant_head


@dataclass(frozen=True, kw_only=True)
class ContextSSL(Predicting):
    """InfoNCE of the context transformer's embeddings + lambda times the latent predictor's error.

    Attributes:
      align: InfoNCE.
    """

    align: Align

    def objective(
        self, params: Any, projected: Mapping[str, Projected], batch: ContextBatch
    ) -> tuple[jax.Array, Metrics]:
        """See Siamese."""
        h = normalize(projected["transformer"].tokens)
        aligned = self.align(h)
        prediction, told = self.prediction(params, h, batch)
        loss = aligned.loss.mean() + self.predictor_weight * prediction
        metrics = mean_over({"loss": loss}, self.axis)
        return loss, metrics | alignment_metrics(aligned, self.axis) | told


def build(config: ConfigDict, dataset: Dataset, axis: str | None) -> ContextSSL:
    """Builds the method from the sections `model`, `loss` and `mask`.

    Raises:
      UserError: an option has none of its possible values.
    """
    align = build_align(config.loss, axis)
    return ContextSSL(
        space=dataset.space,
        backbone=build_backbone(config, dataset, axis),
        heads=equivariant_head(config, dataset, axis, plus=True),
        axis=axis,
        readouts={"predictor": build_predictor(config, dataset)},
        align=align,
        predictor_weight=config.loss.predictor_weight,
    )
