"""What a batch tells of the training beside its losses, over all devices."""

import jax
import jax.numpy as jnp

from contextssl_jax.distributed.collectives import mean_over, sum_over


def early_late_ratio(losses: jax.Array, axis: str | None) -> jax.Array:
    """InfoNCE of contexts' first eighth over that of their last quarter, [B, E, 2K] -> [].

    Far below 1 late in training, it says that later tokens are told apart by their contexts: a
    shortcut that the masks are there to close.
    """
    t = losses.shape[-1]
    early, late = losses[..., : max(1, t // 8)].mean(), losses[..., -(t // 4) :].mean()
    early, late = mean_over((early, late), axis)
    return early / late


def observed_r2(errors: jax.Array, environments: jax.Array, axis: str | None) -> jax.Array:
    """The predictor's R² of each group, where it is shown, on x and on y tokens.

    Args:
      errors: mean squared errors of standardised latents, whose variance is 1, [B, E, 2K, G].
      environments: shown groups, bool [B, E, G].
      axis: over devices, or None.

    Returns:
      [2, G], x tokens first; NaN for a group that no context of the batch shows.
    """
    by_token = jnp.stack([errors[:, :, 0::2].mean(axis=2), errors[:, :, 1::2].mean(axis=2)])
    total, count = (by_token * environments).sum(axis=(1, 2)), environments.sum(axis=(0, 1))
    total, count = sum_over((total, count), axis)
    return 1 - total / jnp.where(count > 0, count, jnp.nan)
