"""The paper's Table 3 at the size of cifar10_small: CIFAR-10, crop and blur, every method.

    python -m launch.sweep --sweep=configs/sweeps/table_3_cifar10.py --workdir=runs/table_3

Eight points, three seeds, all of 3,000 steps of the same batches. Hardware: two CPU cores, some
3 GB of memory. Time: five to eight minutes a run.
"""

from typing import Any

from contextssl_jax.sweeps import Point, Sweep

_UNTOLD: dict[str, Any] = {"environments": ("none",), "eval.environments": ("none",)}
# Masks that hide all but the token itself: c = 0.
_ALONE = {"mask.probability": 1.0, "mask.probability_low": 1.0}


def get_sweep() -> Sweep:
    """Returns the sweep."""
    small = "configs/cifar10_small.py"
    return Sweep(
        title="Table 3 at a small size",
        points=(
            Point("ContextSSL", small),
            Point("SimCLR", "configs/simclr_cifar10.py:small"),
            Point("SimCLR+ (c = 0)", small, {"method": "simclr_plus", **_UNTOLD, **_ALONE}),
            Point("SimCLR+", small, {"method": "simclr_plus", **_UNTOLD}),
            Point("VICReg", "configs/vicreg_cifar10.py:small"),
            Point("EquiMod, crop and blur", "configs/equimod_cifar10.py:small"),
            Point("SEN, crop and blur", "configs/sen_cifar10.py:small"),
            Point("SIE, crop and blur", "configs/sie_cifar10.py:small"),
        ),
        overrides={
            "train.steps": 3000,
            "train.warmup_steps": 150,
            "monitor.every": 1500,
            "eval.environments": ("crop", "blur"),
            "eval.fit_records": 5000,
            "eval.images": 10000,
            "eval.retrieval.records": 50,
            "eval.draws": 2,
        },
    )
