"""Crops of images without padding at the size of cifar10_small: what leads to adaptation.

    python -m launch.sweep --sweep=configs/sweeps/unpadded_cifar10.py --workdir=runs/unpadded

A small encoder recognizes a crop by the image's border. Without a border it has to recognize the
content, as in the paper.

Six points, three seeds, of 3,000 steps but for one. Hardware: two CPU cores, some 3 GB of memory.
See results/unpadded.
"""

from typing import Any

from configs.sweeps.short import SHORT_CIFAR10
from contextssl_jax.sweeps import Sweep, Variant

_UNPADDED: dict[str, Any] = {"crop.padding": 0}
_PLAIN: dict[str, Any] = {**_UNPADDED, "unconditioned_transforms": ()}
_CHANGES: dict[str, dict[str, Any]] = {
    "padded": {},
    "unpadded": _UNPADDED,
    "no nuisances": _PLAIN,
    "no nuisances, predictor weight 1": {**_PLAIN, "loss.predictor_weight": 1.0},
    "no nuisances, predictor weight 20": {**_PLAIN, "loss.predictor_weight": 20.0},
    "no nuisances, 9,000 steps": {**_PLAIN, "train.steps": 9000, "train.warmup_steps": 450},
}


def get_sweep() -> Sweep:
    """Return the sweep."""
    return Sweep(
        title="Crops without padding",
        points=tuple(
            Variant(label, "configs/cifar10_small.py", changes)
            for label, changes in _CHANGES.items()
        ),
        overrides=SHORT_CIFAR10 | {"eval.environments": ("crop", "blur")},
        # As in the official code for 3DIEBench.
        probes={"crop": "mlp", "blur": "linear"},
        paper="Table 3",
        official=True,
    )
