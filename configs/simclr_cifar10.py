"""SimCLR on CIFAR-10 with crop and blur, for comparison with cifar10_{crop_blur,small}.py.

    python -m contextssl_jax.main --config=simclr_cifar10         # ResNet-18
    python -m contextssl_jax.main --config=simclr_cifar10:small   # for two CPU cores

No actions are used. Hardware and data as in those configs. The paper's Table 3 reports for SimCLR
R2 .459 for crop, .371 for blur, 89.1 % linear accuracy.
"""

from ml_collections import ConfigDict

from contextssl_jax.configs import baselines


def get_config(size: str = "full") -> ConfigDict:
    """Return the options."""
    return baselines.simclr(baselines.cifar10(size))
