"""The paper's Table 4 at the size of cifar10_small: crop or none, one model of CIFAR-10.

    python -m launch.sweep --sweep=configs/sweeps/table_4_cifar10.py --workdir=runs/table_4_cifar10

One point of 3,000 steps, three seeds. Hardware: two CPU cores, some 3 GB of memory.
See results/table_4_cifar10.
"""

from configs.sweeps.short import SHORT_CIFAR10
from contextssl_jax.sweeps import Sweep, Variant


def get_sweep() -> Sweep:
    """Return the sweep."""
    return Sweep(
        title="Table 4 on CIFAR-10",
        points=(Variant("ContextSSL", "configs/cifar10_crop.py:small"),),
        overrides=SHORT_CIFAR10 | {"eval.environments": ("crop", "none")},
    )
