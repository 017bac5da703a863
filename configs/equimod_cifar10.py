"""EquiMod on CIFAR-10 with crop and blur, for comparison with cifar10_{crop_blur,small}.py.

    python -m contextssl_jax.main --config=equimod_cifar10         # ResNet-18
    python -m contextssl_jax.main --config=equimod_cifar10:small   # for two CPU cores

The actions of both groups are used; those of one group alone with
--config.environments="('crop',)" or
"('blur',)". Hardware and data as in those configs. The paper has no figures on CIFAR-10.
"""

from ml_collections import ConfigDict

from contextssl_jax.configs import baselines


def get_config(size: str = "full") -> ConfigDict:
    """Return the options."""
    return baselines.equimod(baselines.cifar10(size))
