"""Training metrics beside the losses, over all devices."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from contextssl_jax.distributed.collectives import mean_over, sum_over
from contextssl_jax.losses import InfoNCEOutput


def info_nce_metrics(output: InfoNCEOutput, axis: str | None) -> dict[str, jax.Array]:
    """Return InfoNCE's mean loss, accuracy and cosines, and `early_late`."""
    metrics = mean_over(
        {
            "loss_contrastive": output.loss.mean(),
            "alignment_accuracy": output.correct.mean(),
            "similarity_positive": output.positive.mean(),
            "similarity_negative": output.negative.mean(),
        },
        axis,
    )
    return metrics | {"early_late": early_late_ratio(output.loss, axis)}


def early_late_ratio(losses: jax.Array, axis: str | None) -> jax.Array:
    """Return InfoNCE of contexts' first eighth over that of their last quarter.

    A ratio far below 1 late in training means that the context alone identifies later tokens: a
    shortcut that the random masks are there to prevent.

    Args:
      losses: [B, E, 2K].
      axis: name of the axis over devices, or None.
    """
    t = losses.shape[-1]
    early, late = losses[..., : max(1, t // 8)].mean(), losses[..., -(t // 4) :].mean()
    early, late = mean_over((early, late), axis)
    return early / late


def predictor_metrics(
    loss: jax.Array,
    errors: jax.Array,
    environments: jax.Array,
    names: Sequence[str],
    axis: str | None,
) -> dict[str, jax.Array]:
    """Return the predictor's loss, and its R² of each group on x and on y tokens.

    Args:
      loss: from `predictor_loss`.
      errors: see `observed_r2`.
      environments: observed groups, bool [B, E, G].
      names: of the groups.
      axis: name of the axis over devices, or None.
    """
    metrics = mean_over({"loss_predictor": loss}, axis)
    r2 = observed_r2(errors, environments, axis)
    for i, name in enumerate(names):
        metrics |= {f"predictor_r2/{name}_x": r2[0, i], f"predictor_r2/{name}_y": r2[1, i]}
    return metrics


def observed_r2(errors: jax.Array, environments: jax.Array, axis: str | None) -> jax.Array:
    """Return the predictor's R² of each group where it is observed, on x and on y tokens.

    Args:
      errors: from `parameter_errors` in units of the parameters' standard deviations, so that a
        constant prediction of their means has an error of 1, [B, E, 2K, G].
      environments: observed groups, bool [B, E, G].
      axis: name of the axis over devices, or None.

    Returns:
      [2, G], x tokens first; NaN for a group that no context of the batch observes.
    """
    by_token = jnp.stack([errors[:, :, 0::2].mean(axis=2), errors[:, :, 1::2].mean(axis=2)])
    total, count = (by_token * environments).sum(axis=(1, 2)), environments.sum(axis=(0, 1))
    total, count = sum_over((total, count), axis)
    return 1 - total / jnp.where(count > 0, count, jnp.nan)
