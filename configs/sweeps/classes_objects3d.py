"""Classes that the encoder keeps, and groups that contexts erase, on the built-in objects.

    python -m launch.sweep --sweep=configs/sweeps/classes_objects3d.py --workdir=runs/classes

Hardware: two CPU cores, some 3 GB of memory.
"""

from typing import Any

from configs.sweeps.short import SHORT
from contextssl_jax.sweeps import Sweep, Variant

_NO_ORDER: dict[str, Any] = {
    "mask.order": "none",
    "mask.probability": 0.0,
    "mask.probability_low": 0.0,
}
_CONTRAST: dict[str, Any] = {"loss.encoder_weight": 1.0}
_CHANGES: dict[str, dict[str, Any]] = {
    "no order": _NO_ORDER,
    "encoder contrast": _CONTRAST,
    "no order, encoder contrast": _NO_ORDER | _CONTRAST,
    "no order, encoder contrast, erasure 1": _NO_ORDER | _CONTRAST | {"loss.erasure_weight": 1.0},
    "encoder contrast, erasure 1": _CONTRAST | {"loss.erasure_weight": 1.0},
    "alone .25": {"mask.alone": 0.25},
    "as is": {},
}


def get_sweep() -> Sweep:
    """Return the sweep."""
    return Sweep(
        title="Classes and erasure on the built-in objects",
        points=tuple(
            Variant(label, "configs/quickstart.py", changes) for label, changes in _CHANGES.items()
        ),
        overrides=SHORT,
    )
