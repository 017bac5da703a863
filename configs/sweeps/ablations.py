"""Ablations of the quickstart: each choice changed alone.

    python -m launch.sweep --sweep=configs/sweeps/ablations.py --workdir=runs/ablations

Eight points, three seeds. Hardware: two CPU cores, some 3 GB of memory.
See results/ablations.
"""

from typing import Any

from configs.sweeps.short import SHORT
from contextssl_jax.sweeps import Sweep, Variant

_CHANGES: dict[str, dict[str, Any]] = {
    "as is": {},
    "rows of one mask probability": {"mask.probability": 0.9, "mask.probability_low": 0.9},
    "no predictor": {"loss.predictor_weight": 0.0},
    "no pair mask": {"mask.hide_own_x": False},
    "negatives of the context": {"loss.negatives": "context"},
    "action scale 1": {"model.action_scale": 1.0},
    "one environment a batch": {"data.environment_per": "batch"},
    "one environment a context": {"data.environment_per": "context"},
}


def get_sweep() -> Sweep:
    """Return the sweep."""
    return Sweep(
        title="Figure 5 and more: ablations",
        points=tuple(
            Variant(label, "configs/quickstart.py", changes) for label, changes in _CHANGES.items()
        ),
        overrides=SHORT,
    )
