"""Methods whose embeddings also have to tell the groups that their context shows."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from contextssl_jax.data.contexts import ContextBatch
from contextssl_jax.data.dataset import Dataset
from contextssl_jax.distributed.collectives import mean_over
from contextssl_jax.losses import parameter_errors, predictor_loss
from contextssl_jax.methods.base import Metrics, Predictions, Variables
from contextssl_jax.methods.diagnostics import observed_r2
from contextssl_jax.methods.siamese import Siamese
from contextssl_jax.models.predictor import ParameterPredictor


@dataclass(frozen=True, kw_only=True)
class Predicting(Siamese):
    """A method with the latent predictor among its readouts; see Siamese.

    Attributes:
      predictor_weight: lambda, of the predictor's error.
    """

    predictor_weight: float

    def prediction(
        self, params: Any, h: jax.Array, batch: ContextBatch
    ) -> tuple[jax.Array, Metrics]:
        """Returns the predictor's error on the shown groups' latents (paper, Eq. 3), and metrics.

        Args:
          params: of the whole method.
          h: embeddings of length 1, [B, E, 2K, P].
          batch: the batch.
        """
        predicted: Any = self.readouts["predictor"].apply({"params": params["predictor"]}, h)
        target = self.space.standardize(batch.transform_params[:, :, 1])
        errors = parameter_errors(predicted, target, self.space.param_group_ids)
        loss = predictor_loss(errors, batch.environments)
        metrics = mean_over({"loss_predictor": loss}, self.axis)
        r2 = observed_r2(errors, batch.environments, self.axis)
        for i, name in enumerate(self.space.names):
            metrics |= {f"predictor_r2/{name}_x": r2[0, i], f"predictor_r2/{name}_y": r2[1, i]}
        return loss, metrics

    def predict(self, variables: Variables, embeddings: jax.Array) -> Predictions:
        """See Method: latents."""
        predictor = {"params": variables["params"]["predictor"]}
        transform_params: Any = self.readouts["predictor"].apply(predictor, embeddings)
        return Predictions(transform_params=transform_params)


def build_predictor(config: ConfigDict, dataset: Dataset) -> ParameterPredictor:
    """Builds the latent predictor from `model.predictor`."""
    hidden, entries = tuple(config.model.predictor.hidden), len(dataset.space.param_mean)
    return ParameterPredictor(hidden, entries, jnp.dtype(config.model.dtype))
