"""One model of CIFAR-10 that follows crops, or does not, as its context says (Table 4's way).

    python -m contextssl_jax.main --config=configs/cifar10_crop.py         # ResNet-18
    python -m contextssl_jax.main --config=configs/cifar10_crop.py:small   # for two CPU cores

As cifar10_crop_blur.py or cifar10_small.py, but contexts show crops or nothing at all; blur varies
untold.
"""

from ml_collections import ConfigDict

from configs import sizes


def get_config(size: str = "full") -> ConfigDict:
    """Returns the options."""
    config = sizes.cifar10(size)
    config.groups = ("crop",)
    config.unconditioned_transforms = (*config.unconditioned_transforms, "blur")
    config.environments = ("crop", "none")
    return config
