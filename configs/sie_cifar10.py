"""SIE on CIFAR-10 with crop and blur, beside cifar10_crop_blur.py and cifar10_small.py.

    python -m contextssl_jax.main --config=configs/sie_cifar10.py         # ResNet-18
    python -m contextssl_jax.main --config=configs/sie_cifar10.py:small   # for two CPU cores

Actions of both groups are told; of one group alone with --config.environments="('crop',)" or
"('blur',)". Hardware and data are those of the configs beside it. The paper has no figures of it on
CIFAR-10.
"""

from ml_collections import ConfigDict

from configs import baselines


def get_config(size: str = "full") -> ConfigDict:
    """Returns the options."""
    return baselines.sie(baselines.cifar10(size))
