"""The experiment of cifar10_crop_blur.py at a size that two CPU cores train in minutes.

python -m contextssl_jax.main --config=cifar10_small
"""

from ml_collections import ConfigDict

from contextssl_jax.configs import base, small


def get_config() -> ConfigDict:
    """Return the options."""
    config = base.get_config()
    # A small encoder recognizes a crop's position only by the image's border, and a model
    # cannot become invariant by context to what it does not encode.
    config.crop.padding = 4
    config.unconditioned_transforms = ("flip", "color")
    small.apply(config, steps=9000)
    config.eval.draws = 4
    return config
