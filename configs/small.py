"""Shared part of the configs that two CPU cores train in minutes; no config by itself."""

from ml_collections import ConfigDict


def apply(config: ConfigDict, steps: int, every: int | None = None) -> None:
    """Sets a small model and its training, with the report at the end.

    Args:
      config: is modified.
      steps: of the whole run; a twentieth is warm-up.
      every: steps between checkpoints and between monitor runs; by default a sixth of all.
    """
    config.data.contexts = 2
    config.model.encoder = "patch"
    config.model.transformer.update(width=128, outputs=128, initial=0.09)
    config.model.predictor.hidden = (256, 256)
    config.model.projector.widths = (256, 256, 128)
    # A higher temperature brings positives closer, which reduces the variance of hidden groups.
    config.loss.temperature = 0.3
    config.loss.clamp = False
    # Rows of every density: evaluation shows all 126 tokens, which with a fixed probability is
    # more than in training.
    config.mask.update(probability=0.95, probability_low=0.0, per_layer=False, per_context=True)
    config.train.update(
        steps=steps,
        optimizer="adamw",
        learning_rate=1.5e-3,
        warmup_steps=steps // 20,
        weight_decay=1e-4,
        beta2=0.98,
        clip=1.0,
    )
    config.checkpoint.every = config.monitor.every = every or steps // 6
    config.eval.every = steps
    config.eval.probe.hidden = (128,)
