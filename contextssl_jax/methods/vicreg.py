"""VICReg: invariance, with variance and covariance against collapse (arXiv 2105.04906)."""

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
from contextssl_jax.methods.heads import Projected
from contextssl_jax.methods.siamese import Siamese
from contextssl_jax.methods.simclr import invariant_head


@dataclass(frozen=True, kw_only=True)
class VICReg(Siamese):
    """lambda (x - y)² + mu (variance of x and y) / 2 + nu covariance of x and y; see Siamese.

    Attributes:
      invariance_weight: lambda, of the mean over all entries.
      variance_weight: mu.
      covariance_weight: nu.
    """

    invariance_weight: float
    variance_weight: float
    covariance_weight: float

    def objective(
        self, params: Any, projected: Mapping[str, Projected], batch: ContextBatch
    ) -> tuple[jax.Array, Metrics]:
        """See Siamese."""
        del params, batch
        (one,) = projected.values()
        of_x, of_y = (
            mean_variance_covariance(one.asked, self.axis),
            mean_variance_covariance(one.target, self.axis),
        )
        invariance = jnp.square(one.asked - one.target).mean()
        variance = (of_x.variance + of_y.variance) / 2
        covariance = of_x.covariance + of_y.covariance
        loss = (
            self.invariance_weight * invariance
            + self.variance_weight * variance
            + self.covariance_weight * covariance
        )
        metrics = {
            "loss": loss,
            "loss_invariance": invariance,
            "loss_variance": variance,
            "loss_covariance": covariance,
        }
        return loss, mean_over(metrics, self.axis)


def build(config: ConfigDict, dataset: Dataset, axis: str | None, plus: bool = False) -> VICReg:
    """Builds the method from the sections `model` and `loss`, and of `plus`, `mask`.

    Args:
      config: the options.
      dataset: to learn.
      axis: name of the axis over devices, or None.
      plus: VICReg⁺ of the paper: the context transformer, told no actions, is the projector.

    Raises:
      UserError: an option has none of its possible values.
    """
    loss = config.loss
    return VICReg(
        space=dataset.space,
        backbone=build_backbone(config, dataset, axis),
        heads=invariant_head(config, dataset, axis, plus),
        axis=axis,
        invariance_weight=loss.invariance_weight,
        variance_weight=loss.variance_weight,
        covariance_weight=loss.covariance_weight,
    )
