"""SimCLR on CIFAR-10 with crop and blur, beside cifar10_crop_blur.py and cifar10_small.py.

    python -m contextssl_jax.main --config=configs/simclr_cifar10.py         # ResNet-18
    python -m contextssl_jax.main --config=configs/simclr_cifar10.py:small   # for two CPU cores

No action is told. Hardware and data are those of the configs beside it. The paper's Table 3 says of
SimCLR: R2 .459 for crop, .371 for blur, 89.1 % linear accuracy.
"""

from ml_collections import ConfigDict

from configs import baselines


def get_config(size: str = "full") -> ConfigDict:
    """Returns the options."""
    return baselines.simclr(baselines.cifar10(size))
