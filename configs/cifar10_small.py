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
    config.loss.predictor_weight = 2.0
    config.loss.clamp = False
    config.mask.update(probability=0.7, per_layer=False, per_context=True)
    config.train.update(
        steps=3000,
        optimizer="adamw",
        learning_rate=1.5e-3,
        warmup_steps=150,
        weight_decay=1e-4,
        beta2=0.98,
        clip=1.0,
    )
    config.checkpoint.every = 500
    config.monitor.every = 500
    return config
