"""A size that two CPU cores train in minutes: what configs of that size share.

No config by itself: others apply it, then state what is their own.
"""

from ml_collections import ConfigDict


def apply(config: ConfigDict, steps: int, every: int | None = None) -> None:
    """Sets a small model and its training, with the report at the end.

    Args:
      config: to be changed.
      steps: of the whole run, of which a twentieth is warm-up.
      every: steps between checkpoints, and between looks; by default a sixth of all.
    """
    config.data.contexts = 2
    config.model.encoder = "patch"
    config.model.transformer.update(width=128, outputs=128, initial=0.09)
    config.model.predictor.hidden = (256, 256)
    config.model.projector.widths = (256, 256, 128)
    # A higher temperature asks for closer positives: what the context hides is squeezed further.
    config.loss.temperature = 0.3
    config.loss.clamp = False
    # Rows of every density: at evaluation all 126 tokens are seen, which with a fixed probability
    # is more than the model ever met.
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
