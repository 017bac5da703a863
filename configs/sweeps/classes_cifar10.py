"""Classes that the encoder of ContextSSL keeps, on CIFAR-10.

    python -m launch.sweep --sweep=configs/sweeps/classes_cifar10.py --workdir=runs/classes_cifar10

A contrast of the encoder's own features beside the contextual loss, by its weight. Weight 0, and
SimCLR, are in results/table_3, after the same steps of the same batches.

Two points, three seeds. Hardware: two CPU cores, some 3 GB of memory.
No run.
"""

from configs.sweeps.short import SHORT_CIFAR10
from contextssl_jax.sweeps import Sweep, Variant


def get_sweep() -> Sweep:
    """Return the sweep."""
    return Sweep(
        title="Classes beside adaptivity, on CIFAR-10",
        points=tuple(
            Variant(
                f"weight {weight:g}",
                "configs/cifar10_small.py",
                {"loss.encoder_weight": weight},
            )
            for weight in (1.0, 0.3)
        ),
        overrides=SHORT_CIFAR10 | {"eval.environments": ("crop", "blur")},
    )
