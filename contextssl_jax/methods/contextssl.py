"""ContextSSL: one model whose symmetries are set by the context it reads (paper, Section 3)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.collectives import mean_over
from contextssl_jax.data.contexts import ContextBatch
from contextssl_jax.data.dataset import Dataset, Record
from contextssl_jax.errors import UserError, pick
from contextssl_jax.groups import LatentSpace
from contextssl_jax.losses import (
    Alignment,
    info_nce_batch,
    info_nce_context,
    latent_errors,
    normalise,
    predictor_loss,
)
from contextssl_jax.masks import training_masks
from contextssl_jax.methods.base import Metrics, Variables, hide
from contextssl_jax.metrics import early_late, shown_r2
from contextssl_jax.models import ENCODERS
from contextssl_jax.models.predictor import LatentPredictor
from contextssl_jax.models.transformer import Cache, ContextTransformer

PARTS = ("encoder", "transformer", "predictor")


class Context(NamedTuple):
    """A context of S tokens that has been read."""

    cache: Cache
    seen: jax.Array  # tokens that queries see in each block, bool [L or 1, S]


@dataclass(frozen=True)
class ContextSSL:
    """The method of the paper; see Method for the functions.

    Attributes:
      space: of the latents.
      render: the data set's device function.
      encoder: images [N, H, W, 3] to features [N, F].
      transformer: tokens to embeddings.
      predictor: embeddings to latents.
      action_scale: root-mean-square norm of each group's action at the read-in. Features of
        hundreds of entries drown a handful of action entries of unit size.
      align: InfoNCE, from embeddings [B, E, 2K, P].
      predictor_weight: lambda.
      draw_masks: (key, positions [B], E, tokens) -> masks, see training_masks; without a key, only
        what is hidden always is hidden.
      axis: name of the axis over devices, or None.
    """

    space: LatentSpace
    render: Callable[[Record, jax.Array], jax.Array]
    encoder: nn.Module
    transformer: ContextTransformer
    predictor: LatentPredictor
    action_scale: float
    align: Callable[[jax.Array], Alignment]
    predictor_weight: float
    draw_masks: Callable[[jax.Array | None, jax.Array, int, int], jax.Array]
    axis: str | None

    def init(self, key: jax.Array, batch: ContextBatch) -> Variables:
        """See Method.init."""
        record = jax.tree.map(lambda leaf: leaf[:1, :1, 0], batch.record)
        record, latents = _flat((record, batch.latents[:1, :1, 0]), 2)
        keys = dict(zip(PARTS, jax.random.split(key, len(PARTS)), strict=True))
        features, encoder = self.encoder.init_with_output(
            keys["encoder"], self.render(record, latents), train=False
        )
        actions = jnp.zeros((1, len(self.space.action_mean)))
        token = jnp.concatenate([features, actions], axis=-1)
        mask = jnp.ones((1, 1, 1, 1), bool)
        h, transformer = self.transformer.init_with_output(keys["transformer"], token[None], mask)
        predictor = self.predictor.init(keys["predictor"], h)
        return {
            "params": {
                "encoder": encoder["params"],
                "transformer": transformer["params"],
                "predictor": predictor["params"],
            },
            "batch_stats": encoder.get("batch_stats", {}),
        }

    def loss(
        self, params: Any, batch_stats: Any, batch: ContextBatch, key: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Metrics]]:
        """See Method.loss: InfoNCE + lambda times the predictor's error."""
        b, k = batch.latents.shape[:2]
        e = batch.environments.shape[1]
        # x1, y1, x2, y2, ... of every context: both views in one call, so in one set of statistics.
        record = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (b, k, 2, *leaf.shape[3:])), batch.record
        )
        views = self.render(*_flat((record, batch.latents), 3))
        features, updated = self.encoder.apply(
            {"params": params["encoder"], "batch_stats": batch_stats},
            views,
            train=True,
            mutable=["batch_stats"],
        )
        tokens = self._tokens(
            features.reshape(b, 1, k, 2, -1),
            hide(
                self.space.actions(batch.latents[:, :, 0], batch.latents[:, :, 1])[:, None],
                batch.environments[:, :, None],
                self.space.action_owner,
            ),
        )
        masks = self.draw_masks(key, batch.position, e, 2 * k)
        masks = jnp.broadcast_to(masks, (len(masks), b, e, 2 * k, 2 * k))
        h = _apply(
            self.transformer,
            params["transformer"],
            tokens.reshape(b * e, 2 * k, -1),
            masks.reshape(len(masks), b * e, 2 * k, 2 * k),
        )
        h = normalise(h).reshape(b, e, 2 * k, -1)
        aligned = self.align(h)
        errors = latent_errors(
            _apply(self.predictor, params["predictor"], h),
            self.space.standardise(batch.latents[:, :, 1]),
            self.space.latent_owner,
        )
        contrastive = aligned.loss.mean()
        prediction = predictor_loss(errors, batch.environments)
        loss = contrastive + self.predictor_weight * prediction
        metrics = mean_over(
            {
                "loss": loss,
                "loss_contrastive": contrastive,
                "loss_predictor": prediction,
                "alignment_accuracy": aligned.correct.mean(),
                "similarity_positive": aligned.positive.mean(),
                "similarity_negative": aligned.negative.mean(),
            },
            self.axis,
        )
        metrics["early_late"] = early_late(aligned.loss, self.axis)
        r2 = shown_r2(errors, batch.environments, self.axis)
        for i, name in enumerate(self.space.names):
            metrics |= {f"predictor_r2/{name}_x": r2[0, i], f"predictor_r2/{name}_y": r2[1, i]}
        return loss, (updated.get("batch_stats", {}), metrics)

    def features(self, variables: Variables, record: Record, latents: jax.Array) -> jax.Array:
        """See Method.features."""
        encoder = {
            "params": variables["params"]["encoder"],
            "batch_stats": variables["batch_stats"],
        }
        features: Any = self.encoder.apply(encoder, self.render(record, latents), train=False)
        return features

    def read(
        self,
        variables: Variables,
        features: jax.Array,
        actions: jax.Array,
        key: jax.Array | None = None,
    ) -> Context:
        """See Method.read: keys and values of the context's 2K tokens."""
        tokens = self._tokens(features[None], actions[None])[0]
        # Queries are one more x token, so that they see what the x of a next pair would.
        masks = self.draw_masks(key, jnp.zeros((1,), jnp.int32), 1, len(tokens) + 2)[:, 0, 0]
        inside, seen = masks[:, :-2, :-2], masks[:, -2, :-2]
        params = variables["params"]["transformer"]
        return Context(_apply(self.transformer, params, tokens, inside, method="prefix"), seen)

    def embed(
        self,
        variables: Variables,
        context: Context,
        length: jax.Array | int,
        features: jax.Array,
        actions: jax.Array,
    ) -> jax.Array:
        """See Method.embed."""
        tokens = jnp.concatenate([features, self._scaled(actions)], axis=-1)
        seen = context.seen & (jnp.arange(context.seen.shape[-1]) < length)
        params = variables["params"]["transformer"]
        return normalise(
            _apply(self.transformer, params, tokens, context.cache, seen, method="query")
        )

    def predict(self, variables: Variables, embeddings: jax.Array) -> jax.Array:
        """See Method.predict."""
        return _apply(self.predictor, variables["params"]["predictor"], embeddings)

    def _scaled(self, actions: jax.Array) -> jax.Array:
        entries = np.bincount(self.space.action_owner)[self.space.action_owner]
        return actions * np.float32(self.action_scale / np.sqrt(entries))

    def _tokens(self, features: jax.Array, actions: jax.Array) -> jax.Array:
        """Makes tokens (z_x, a), (z_y, 0), ...

        Args:
          features: [..., 1 or E, K, 2, F].
          actions: [..., E, K, A].

        Returns:
          [..., E, 2K, F + A].
        """
        scaled = self._scaled(actions)
        both = jnp.stack([scaled, jnp.zeros_like(scaled)], axis=-2)
        features = jnp.broadcast_to(features, (*both.shape[:-1], features.shape[-1]))
        tokens = jnp.concatenate([features, both], axis=-1)
        return tokens.reshape(*tokens.shape[:-3], -1, tokens.shape[-1])


def build(config: ConfigDict, dataset: Dataset, axis: str | None) -> ContextSSL:
    """Builds the method from the sections `model`, `loss` and `mask`.

    Raises:
      UserError: an option has none of its possible values.
    """
    model, loss, mask = config.model, config.loss, config.mask
    if loss.negatives not in ("batch", "context"):
        raise UserError(f"loss.negatives: {loss.negatives!r} is neither 'batch' nor 'context'")
    if model.transformer.width % model.transformer.heads:
        raise UserError("model.transformer.heads: must divide model.transformer.width")
    if model.dtype not in ("float32", "bfloat16"):
        raise UserError(f"model.dtype: {model.dtype!r} is neither 'float32' nor 'bfloat16'")
    dtype = jnp.dtype(model.dtype)

    def align(h: jax.Array) -> Alignment:
        options = dict(temperature=loss.temperature, clamp=loss.clamp)
        if loss.negatives == "batch":
            return info_nce_batch(h, **options, axis=axis)
        return info_nce_context(h, **options)

    def draw_masks(
        key: jax.Array | None, position: jax.Array, environments: int, tokens: int
    ) -> jax.Array:
        options = mask.to_dict()
        if key is None:
            key = jax.random.key(0)
            options |= dict(probability=0.0, probability_low=None)
        return training_masks(
            key,
            position,
            environments=environments,
            tokens=tokens,
            layers=model.transformer.blocks,
            **options,
        )

    return ContextSSL(
        space=dataset.space,
        render=dataset.render,
        encoder=pick(ENCODERS, model.encoder, "model.encoder")(model, axis),
        transformer=ContextTransformer(**model.transformer, dtype=dtype, remat=model.remat),
        predictor=LatentPredictor(
            tuple(model.predictor.hidden), len(dataset.space.latent_mean), dtype
        ),
        action_scale=model.action_scale,
        align=align,
        predictor_weight=loss.predictor_weight,
        draw_masks=draw_masks,
        axis=axis,
    )


def _apply(module: nn.Module, params: Any, *args: Any, **kwargs: Any) -> Any:
    """Applies a module that has parameters alone."""
    return module.apply({"params": params}, *args, **kwargs)


def _flat(tree: Any, axes: int) -> Any:
    """Merges the leading axes of every leaf."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[axes:]), tree)
