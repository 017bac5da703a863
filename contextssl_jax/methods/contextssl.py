"""ContextSSL: self-supervised learning with a contextual world model (arXiv 2405.18193, Sec. 3).

One encoder f and one causal transformer h learn from contexts C = (x_1, a_1, y_1), ..., (x_K, a_K,
y_K): a transformation with parameters a_i takes the image x_i to y_i. A context observes the
parameters of some transformation groups; those of the other groups are 0, although the images
differ by them too. Trained on contexts that observe different groups, h learns to be equivariant to
the groups that its context observes, and invariant to the others.

Letters of shapes: B contexts on this device, E environments (which groups are observed) that each
context is embedded in, K pairs, G groups, T and A entries of transform parameters and actions, F
features, P embedding entries. The indices below are those of the paper.
"""

from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from contextssl_jax.data.contexts import ContextBatch
from contextssl_jax.data.dataset import Dataset
from contextssl_jax.distributed.collectives import mean_over
from contextssl_jax.losses import (
    build_info_nce,
    normalize,
    parameter_errors,
    predictor_loss,
)
from contextssl_jax.masks import training_masks
from contextssl_jax.methods.assembly import assemble_method
from contextssl_jax.methods.base import (
    Method,
    Metrics,
    Predictions,
    Variables,
    method_space,
    observed_actions,
    variables_of,
)
from contextssl_jax.methods.context_head import action_scales, build_context_head
from contextssl_jax.methods.heads import build_projector
from contextssl_jax.methods.metrics import info_nce_metrics, predictor_metrics
from contextssl_jax.methods.view_encoder import build_view_encoder
from contextssl_jax.models.context_transformer import embed_contexts, interleave, make_tokens
from contextssl_jax.models.predictor import build_predictor


def build(
    config: ConfigDict,
    dataset: Dataset,
    axis: str | None,
    draw_masks: Callable[..., jax.Array] = training_masks,
) -> Method:
    """Build the method from the sections `model`, `loss` and `mask`.

    Args:
      config: the options.
      dataset: whose views are rendered and whose groups condition the model.
      axis: name of the axis over devices that hold other contexts, or None.
      draw_masks: returns the attention masks of a training step; see `training_masks`.

    Raises:
      UserError: an option has an unknown value.
    """
    space = method_space(config, dataset.space)
    encoder = build_view_encoder(config, dataset, axis)  # f
    head = build_context_head(config, space, use_actions=True)  # h, for evaluation
    transformer: Any = head.module  # h
    predictor = build_predictor(config.model, len(space.param_mean))  # the head of Eq. 3
    info_nce = build_info_nce(config.loss, axis)
    scales = action_scales(space, config.model)
    deviations = dataset.space.deviations(space)  # in the predictor's units
    heads = {"transformer": head}
    encoder_weight = config.loss.encoder_weight
    if encoder_weight:
        heads = {"projector": build_projector(config.model, axis)} | heads

    def loss(
        params: Any, batch_stats: Any, batch: ContextBatch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Metrics]]:
        """Return the training loss; see `Method`."""
        # Features of both views of every pair: f(x_i), f(y_i).                     [B, K, 2, F]
        features, encoder_statistics = encoder.encode_pairs(
            params["encoder"], batch_stats.get("encoder", {}), batch
        )
        # Actions a_i, 0 for groups that the environment does not observe.          [B, E, K, A]
        actions = observed_actions(space, batch)
        # Tokens (f(x_1), a_1), (f(y_1), 0), (f(x_2), a_2), ...: y has no action.   [B, E, 2K, F+A]
        tokens = make_tokens(features[:, None], actions * scales)
        # A token attends to itself and to earlier pairs. y_i does not attend to its own x_i, and
        # each row hides every earlier pair with probability p (context masking). [L, B, E, 2K, 2K]
        masks = draw_masks(
            key,
            batch.position,
            environments=tokens.shape[1],
            tokens=tokens.shape[2],
            layers=transformer.blocks,
            **config.mask,
        )
        # h((x_i, a_i) | C_i) and h(y_i | C_i), in the order of the tokens, of length 1.
        own = variables_of("transformer", params, batch_stats)  #                   [B, E, 2K, P]
        h = normalize(interleave(*embed_contexts(transformer, own, tokens, masks)))
        # InfoNCE (Eq. 2): each x token's positive is its y token, and the reverse.
        contrastive = info_nce(h)
        # The predictor's error on t^y, the parameters of y, from both tokens (Eq. 3); only the
        # observed groups count. It keeps the model from ignoring the actions.
        predicted: Any = predictor.apply({"params": params["predictor"]}, h)
        target = space.standardize(batch.transform_params[:, :, 1])
        errors = parameter_errors(predicted, target, space.param_group_ids)
        prediction = predictor_loss(errors, batch.environments)
        # The sum of both, with weight lambda.
        total = contrastive.loss.mean() + config.loss.predictor_weight * prediction
        statistics, losses = {"encoder": encoder_statistics}, {}
        # Not in the paper: InfoNCE between projections of the features, which see no context.
        if encoder_weight:
            own = variables_of("projector", params, batch_stats)
            projected, statistics["projector"] = heads["projector"].embed_pairs(
                own, features, actions, batch.position, key
            )
            losses["loss_encoder"] = info_nce(normalize(projected.tokens)).loss.mean()
            total += encoder_weight * losses["loss_encoder"]
        metrics = mean_over({"loss": total} | losses, axis)
        metrics |= info_nce_metrics(contrastive, axis)
        errors = parameter_errors(predicted, target, space.param_group_ids, deviations)
        metrics |= predictor_metrics(prediction, errors, batch.environments, space.names, axis)
        return total, ({name: statistics[name] for name in batch_stats}, metrics)

    def predict(variables: Variables, embeddings: jax.Array) -> Predictions:
        """Predict transform parameters; see `Method`."""
        parameters: Any = predictor.apply({"params": variables["params"]["predictor"]}, embeddings)
        return Predictions(transform_params=parameters)

    return assemble_method(
        space,
        encoder,
        heads,
        loss,
        readouts={"predictor": predictor},
        predict=predict,
        independent_contexts=config.loss.negatives == "context" and not encoder_weight,
    )
