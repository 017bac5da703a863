"""The interface between a method and everything that trains, saves and evaluates it.

Letters of shapes: B contexts on this device, E environments that each context is embedded in, K
pairs, N views, G conditioned groups, T and A entries of transform parameters and actions, F
features, P embedding entries.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.data.contexts import ContextBatch
from contextssl_jax.data.dataset import Record
from contextssl_jax.methods.heads import Head
from contextssl_jax.transforms import ParameterSpace

Variables = dict[str, Any]  # {"params": ..., "batch_stats": ...}, both pytrees of float32 arrays
Metrics = dict[str, jax.Array]
Array = Any  # NumPy on the host, JAX on the device


class Predictions(NamedTuple):
    """What a method predicts from embeddings, without any probe; None for what it does not."""

    transform_params: Array = None  # in the units of `Method.space`, float32 [N, T]
    classes: Array = None  # logits, float32 [N, C]


@dataclass(frozen=True)
class Method:
    """A self-supervised method as pure functions of its variables.

    Attributes:
      space: the conditioned groups' transform parameters and actions, in the units in which the
        method predicts parameters and takes actions; see `method_space`.
      modules: the Flax modules of the parts that the parameters are divided into, by part.
      heads: from features to embeddings, by part; the last one's outputs are the embeddings.
      uses_context: True if embeddings depend on a context; for other methods only the context
        length 0 has a meaning.
      init: (key, batch) -> initial variables; the batch gives the shapes.
      loss: (params, batch_stats, batch, key) -> (this device's loss, (new batch statistics,
        metrics over all devices)). The mean of the loss over devices is minimized. A metric that
        a batch cannot determine is NaN.
      encode: (variables, record leaves [N, ...], transform parameters [N, T + unconditioned]) ->
        features [N, F] of the rendered views.
      encode_context: see `Head`; the variables are those of the whole method.
      embed: see `Head`; the variables are those of the whole method, the embeddings have length 1.
      predict: (variables, embeddings [N, P]) -> Predictions.
      target_classes: (labels [n], observed groups bool [G]) -> the classes that the method is
        trained to predict in that environment, int [n].
      independent_contexts: True if the loss is a mean over contexts that do not affect each other,
        apart from batch statistics.
    """

    space: ParameterSpace
    modules: Mapping[str, nn.Module]
    heads: Mapping[str, Head]
    uses_context: bool
    init: Callable[[jax.Array, ContextBatch], Variables]
    loss: Callable[[Any, Any, ContextBatch, jax.Array], tuple[jax.Array, tuple[Any, Metrics]]]
    encode: Callable[[Variables, Record, jax.Array], jax.Array]
    encode_context: Callable[..., Any]
    embed: Callable[..., jax.Array]
    predict: Callable[[Variables, jax.Array], Predictions]
    target_classes: Callable[[np.ndarray, np.ndarray], np.ndarray]
    independent_contexts: bool = False


def method_space(config: ConfigDict, space: ParameterSpace) -> ParameterSpace:
    """Return a data set's space in a method's units.

    Those of parameters are set by `loss.standardize_targets`, those of actions by
    `model.standardize_actions`.
    """
    return space.with_units(
        standardize_params=config.loss.standardize_targets,
        standardize_actions=config.model.standardize_actions,
    )


def mask_actions(actions: Array, observed: Array, group_ids: np.ndarray) -> Array:
    """Set the entries of actions [..., A] to 0 whose group is not observed, bool [..., G]."""
    return actions * observed[..., group_ids]


def observed_actions(space: ParameterSpace, batch: ContextBatch) -> jax.Array:
    """Return the actions from x to y, 0 for groups that are not observed, [B, E, K, A]."""
    x, y = batch.transform_params[:, :, 0], batch.transform_params[:, :, 1]
    observed = batch.environments[:, :, None]
    return mask_actions(space.actions(x, y)[:, None], observed, space.action_group_ids)


def variables_of(part: str, params: Any, batch_stats: Any) -> Variables:
    """Return the variables of one part."""
    return {"params": params[part], "batch_stats": batch_stats.get(part, {})}
