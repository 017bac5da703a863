"""The paper's Table 3: CIFAR-10, crop and blur, every method at full size.

    python -m launch.sweep --sweep=configs/sweeps/table_3_cifar10_full.py --workdir=runs/table_3

Ten points, three seeds; hardware as in cifar10_crop_blur.py. No run of this file has been made yet.
"""

from configs.sweeps import methods
from contextssl_jax.sweeps import Sweep


def get_sweep() -> Sweep:
    """Return the sweep."""
    return Sweep(
        title="Table 3",
        points=(
            *methods.invariant(
                "configs/cifar10_crop_blur.py", "cifar10.py", {"mask.probability": 1.0}
            ),
            *methods.equivariant("cifar10.py", {"crop, blur": ("crop+blur",)}),
        ),
        paper="Table 3",
        official=True,
    )
