"""The experiment of cifar10_crop_blur.py at a size that two CPU cores train in minutes.

python -m contextssl_jax.main --config=configs/cifar10_small.py
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns the options."""
    config = base.get_config()
    # A small encoder tells a crop's place only where it can see the image's border, and a model
    # cannot become invariant by context to what it does not encode.
    config.crop.padding = 4
    config.nuisances = ("flip", "color")
    config.data.contexts = 2
    config.model.encoder = "patch"
    config.model.transformer.update(width=128, outputs=128, initial=0.09)
    config.model.predictor.hidden = (256, 256)
    # A higher temperature asks for closer positives: what the context hides is squeezed further.
    config.loss.temperature = 0.3
    config.loss.clamp = False
    # Rows of every density: at evaluation all 126 tokens are seen, which with a fixed probability
    # is more than the model ever met.
    config.mask.update(probability=0.95, probability_low=0.0, per_layer=False, per_context=True)
    config.train.update(
        steps=9000,
        optimizer="adamw",
        learning_rate=1.5e-3,
        warmup_steps=450,
        weight_decay=1e-4,
        beta2=0.98,
        clip=1.0,
    )
    config.checkpoint.every = 1500
    config.monitor.every = 1500
    config.eval.every = config.train.steps
    config.eval.draws = 4
    config.eval.probe.hidden = (128,)
    return config
