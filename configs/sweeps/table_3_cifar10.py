"""The paper's Table 3 at the size of cifar10_small: CIFAR-10, crop and blur, every method.

    python -m launch.sweep --sweep=configs/sweeps/table_3_cifar10.py --workdir=runs/table_3

Ten points, three seeds, all of 3,000 steps of the same batches. Hardware: two CPU cores, some 3 GB
of memory.
See results/table_3.
"""

from configs.sweeps import methods
from configs.sweeps.short import SHORT_CIFAR10
from contextssl_jax.sweeps import Sweep


def get_sweep() -> Sweep:
    """Return the sweep."""
    alone = {"mask.probability": 1.0, "mask.probability_low": 1.0}
    return Sweep(
        title="Table 3 on CIFAR-10",
        points=(
            *methods.invariant("configs/cifar10_small.py", "cifar10.py:small", alone),
            *methods.equivariant("cifar10.py:small", {"crop, blur": ("crop+blur",)}),
        ),
        overrides=SHORT_CIFAR10 | {"eval.environments": ("crop", "blur")},
        paper="Table 3",
    )
