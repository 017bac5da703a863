"""Three groups on CIFAR-10: crop, blur and color, any subset of which a context may observe.

    python -m contextssl_jax.main --config=cifar10_crop_blur_color         # ResNet-18
    python -m contextssl_jax.main --config=cifar10_crop_blur_color:small   # two cores

Training contexts observe each group alone, and crop with blur. The report evaluates all eight
subsets, four of which training never observes: crop+color, blur+color, all three, and none. The
paper has at most two groups.
"""

from ml_collections import ConfigDict

from contextssl_jax.configs import sizes


def get_config(size: str = "full") -> ConfigDict:
    """Return the options."""
    config = sizes.cifar10(size)
    config.groups = ("crop", "blur", "color")
    config.unconditioned_transforms = ("flip",)
    config.environments = ("crop", "blur", "color", "crop+blur")
    config.eval.environments = (
        *config.environments,
        *("crop+color", "blur+color", "crop+blur+color", "none"),
    )
    return config
