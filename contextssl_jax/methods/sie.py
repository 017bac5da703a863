"""SIE: features split into an invariant and an equivariant half (arXiv 2302.10283)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from contextssl_jax.data.contexts import ContextBatch
from contextssl_jax.data.dataset import Dataset
from contextssl_jax.decorrelation import mean_variance_covariance
from contextssl_jax.distributed.collectives import mean_over
from contextssl_jax.methods.backbone import build_backbone
from contextssl_jax.methods.base import Metrics
from contextssl_jax.methods.heads import (
    Projected,
    build_action_projector,
    build_projector,
)
from contextssl_jax.methods.siamese import Siamese


@dataclass(frozen=True, kw_only=True)
class SIE(Siamese):
    """VICReg's terms, the halves' invariance apart; see Siamese. Embeddings are the second half's.

    lambda (x_i - y_i)² + alpha (rho(a, x_e) - y_e)² + mu (variance of x and y) / 2
    + mu (variance of rho(a, x_e)) / 2 + nu covariance of x and y, with x and y both halves as one.

    Attributes:
      invariance_weight: lambda.
      equivariance_weight: alpha.
      variance_weight: mu.
      covariance_weight: nu.
    """

    invariance_weight: float
    equivariance_weight: float
    variance_weight: float
    covariance_weight: float

    def objective(
        self, params: Any, projected: Mapping[str, Projected], batch: ContextBatch
    ) -> tuple[jax.Array, Metrics]:
        """See Siamese."""
        del params, batch
        invariant, equivariant = projected["invariant"], projected["equivariant"]
        x = jnp.concatenate([invariant.source, equivariant.source], axis=-1)
        y = jnp.concatenate([invariant.target, equivariant.target], axis=-1)
        of_x, of_y = mean_variance_covariance(x, self.axis), mean_variance_covariance(y, self.axis)
        of_asked = mean_variance_covariance(equivariant.asked, self.axis)
        terms = {
            "loss_invariance": jnp.square(invariant.source - invariant.target).mean(),
            "loss_equivariance": jnp.square(equivariant.asked - equivariant.target).mean(),
            "loss_variance": (of_x.variance + of_y.variance + of_asked.variance) / 2,
            "loss_covariance": of_x.covariance + of_y.covariance,
        }
        loss = (
            self.invariance_weight * terms["loss_invariance"]
            + self.equivariance_weight * terms["loss_equivariance"]
            + self.variance_weight * terms["loss_variance"]
            + self.covariance_weight * terms["loss_covariance"]
        )
        return loss, mean_over({"loss": loss} | terms, self.axis)


def build(config: ConfigDict, dataset: Dataset, axis: str | None) -> SIE:
    """Builds the method from the sections `model` and `loss`.

    Raises:
      UserError: an option has none of its possible values.
    """
    loss = config.loss
    heads = {
        "invariant": build_projector(config.model, axis, (0, 2)),
        "equivariant": build_action_projector(config.model, axis, (1, 2)),
    }
    return SIE(
        space=dataset.space,
        backbone=build_backbone(config, dataset, axis),
        heads=heads,
        axis=axis,
        invariance_weight=loss.invariance_weight,
        equivariance_weight=loss.equivariance_weight,
        variance_weight=loss.variance_weight,
        covariance_weight=loss.covariance_weight,
    )
