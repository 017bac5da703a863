"""The optimiser: Adam with coupled L2 or AdamW, clipping, linear warm-up and cosine decay."""

import optax
from ml_collections import ConfigDict

from contextssl_jax.errors import UserError


def build_schedule(train: ConfigDict) -> optax.Schedule:
    """Returns the rate by step: linear from 0 over the warm-up, then cosine to 0 at the end.

    Args:
      train: the section, with `learning_rate` (the peak), `warmup_steps` and `steps`.

    Raises:
      UserError: the warm-up is not shorter than the training.
    """
    if not 0 <= train.warmup_steps < train.steps:
        raise UserError(
            f"train.warmup_steps: {train.warmup_steps} is not below train.steps, {train.steps}"
        )
    return optax.warmup_cosine_decay_schedule(
        0.0, train.learning_rate, train.warmup_steps, train.steps
    )


def build_optimizer(train: ConfigDict) -> optax.GradientTransformation:
    """Builds the optimiser from the section `train`.

    "adam" adds the decay to the gradient before the moments, over all parameters, as torch's Adam
    and so the official code do; "adamw" decays the parameters apart (arXiv 1711.05101).

    Raises:
      UserError: an unknown `optimizer`.
    """
    moments = optax.scale_by_adam(train.beta1, train.beta2, eps=1e-8)
    decay = optax.add_decayed_weights(train.weight_decay)
    if train.optimizer not in ("adam", "adamw"):
        raise UserError(f"train.optimizer: {train.optimizer!r} is neither 'adam' nor 'adamw'")
    clip = optax.clip_by_global_norm(train.clip) if train.clip else optax.identity()
    order = (decay, moments) if train.optimizer == "adam" else (moments, decay)
    return optax.chain(clip, *order, optax.scale_by_learning_rate(build_schedule(train)))
