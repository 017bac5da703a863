"""EquiMod: SimCLR, and beside it equivariance by contrast (arXiv 2211.01244).

In the form of SIE's comparison (arXiv 2302.10283): two projectors on one encoder, and the action
relates the two views, instead of each view to the untouched image.
"""

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
from contextssl_jax.methods.sen import equivariant_head
from contextssl_jax.methods.siamese import Siamese
from contextssl_jax.methods.simclr import invariant_head


@dataclass(frozen=True, kw_only=True)
class EquiMod(Siamese):
    """NT-Xent of the invariant head, and alpha times that of the equivariant one; see Siamese.

    Attributes:
      align: InfoNCE.
      equivariance_weight: alpha.
    """

    align: Align
    equivariance_weight: float

    def objective(
        self, params: Any, projected: Mapping[str, Projected], batch: ContextBatch
    ) -> tuple[jax.Array, Metrics]:
        """See Siamese."""
        del params, batch
        (other,) = projected.keys() - {"projector"}
        both = projected["projector"], projected[other]
        invariant, equivariant = (self.align(normalize(p.tokens)) for p in both)
        of_equivariant = equivariant.loss.mean()
        loss = invariant.loss.mean() + self.equivariance_weight * of_equivariant
        metrics = mean_over({"loss": loss, "loss_equivariant": of_equivariant}, self.axis)
        return loss, metrics | alignment_metrics(invariant, self.axis)


def build(config: ConfigDict, dataset: Dataset, axis: str | None, plus: bool = False) -> EquiMod:
    """Builds the method from the sections `model` and `loss`, and of `plus`, `mask`.

    Args:
      config: the options.
      dataset: to learn.
      axis: name of the axis over devices, or None.
      plus: EquiMod⁺: the context transformer, told actions, is the equivariant head.

    Raises:
      UserError: an option has none of its possible values.
    """
    heads = invariant_head(config, dataset, axis, plus=False)
    heads |= equivariant_head(config, dataset, axis, plus)
    return EquiMod(
        space=dataset.space,
        backbone=build_backbone(config, dataset, axis),
        heads=heads,
        axis=axis,
        align=build_align(config.loss, axis),
        equivariance_weight=config.loss.equivariance_weight,
    )
