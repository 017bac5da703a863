"""The two sizes of the experiments on CIFAR-10; no config by itself."""

from ml_collections import ConfigDict

from contextssl_jax.configs import cifar10_crop_blur, cifar10_small


def cifar10(size: str) -> ConfigDict:
    """Return crop and blur on CIFAR-10: "full" as cifar10_crop_blur.py, or "small".

    Raises:
      ValueError: another size.
    """
    if size not in ("full", "small"):
        raise ValueError(f"the config comes in the sizes 'full' and 'small', not in {size!r}")
    return (cifar10_small if size == "small" else cifar10_crop_blur).get_config()
