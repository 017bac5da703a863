"""Three groups at the size of cifar10_small, evaluated in all eight subsets.

    python -m launch.sweep --sweep=configs/sweeps/three_groups_cifar10.py --workdir=runs/three

Two points, three seeds, of 4,500 steps. Hardware: two CPU cores, some 3 GB of memory.
See results/three_groups.
"""

from configs.sweeps.short import SHORT_CIFAR10
from contextssl_jax.sweeps import Sweep, Variant


def get_sweep() -> Sweep:
    """Return the sweep."""
    three = "configs/cifar10_crop_blur_color.py:small"
    return Sweep(
        title="Beyond two groups: crop, blur and color",
        points=(
            Variant("single groups and crop+blur", three),
            Variant("single groups", three, {"environments": ("crop", "blur", "color")}),
        ),
        overrides=SHORT_CIFAR10 | {"train.steps": 4500, "train.warmup_steps": 225},
    )
