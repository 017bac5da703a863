"""One model of CIFAR-10, equivariant or invariant to crops by its context (as in Table 4).

    python -m contextssl_jax.main --config=cifar10_crop         # ResNet-18
    python -m contextssl_jax.main --config=cifar10_crop:small   # for two CPU cores

As cifar10_crop_blur.py or cifar10_small.py, but contexts observe crops or no group; blur varies
as an unconditioned transform.
"""

from ml_collections import ConfigDict

from contextssl_jax.configs import sizes


def get_config(size: str = "full") -> ConfigDict:
    """Return the options."""
    config = sizes.cifar10(size)
    config.groups = ("crop",)
    config.unconditioned_transforms = (*config.unconditioned_transforms, "blur")
    config.environments = ("crop", "none")
    return config
