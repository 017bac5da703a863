"""Classes that the encoder of ContextSSL keeps, on CIFAR-10.

    python -m launch.sweep --sweep=configs/sweeps/classes_cifar10.py --workdir=runs/classes_cifar10

A contrast of the encoder's own features beside the contextual loss. ContextSSL without it, and
SimCLR, are in results/table_3, after the same steps of the same batches.

One point, three seeds. Hardware: two CPU cores, some 3 GB of memory.
See results/classes_cifar10.
"""

from configs.sweeps.short import SHORT_CIFAR10
from contextssl_jax.sweeps import Sweep, Variant


def get_sweep() -> Sweep:
    """Return the sweep."""
    return Sweep(
        title="Classes beside adaptivity, on CIFAR-10",
        points=(Variant("weight 1", "configs/cifar10_small.py", {"loss.encoder_weight": 1.0}),),
        overrides=SHORT_CIFAR10 | {"eval.environments": ("crop", "blur")},
    )
