"""Classes that the encoder of ContextSSL keeps, on the built-in objects.

    python -m launch.sweep --sweep=configs/sweeps/classes_objects3d.py --workdir=runs/classes

A contrast of the encoder's own features beside the contextual loss, by its weight, and contexts as
sets with and without it. The classes of SimCLR, the aim, are in results/table_1.

Six points, three seeds. Hardware: two CPU cores, some 3 GB of memory.
See results/classes.
"""

from typing import Any

from configs.sweeps.short import SHORT
from contextssl_jax.sweeps import Sweep, Variant

_SETS: dict[str, Any] = {
    "mask.context": "set",
    "mask.probability": 0.0,
    "mask.probability_low": 0.0,
}


def get_sweep() -> Sweep:
    """Return the sweep."""
    weights = (0.0, 0.3, 1.0, 3.0)
    points = [
        Variant(f"weight {weight:g}", "configs/quickstart.py", {"loss.encoder_weight": weight})
        for weight in weights
    ]
    points += [
        Variant("sets", "configs/quickstart.py", _SETS),
        Variant("sets, weight 1", "configs/quickstart.py", _SETS | {"loss.encoder_weight": 1.0}),
    ]
    return Sweep(
        title="Classes beside adaptivity",
        points=tuple(points),
        overrides=SHORT,
    )
