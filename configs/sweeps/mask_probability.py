"""The paper's Figure 4 at the size of the quickstart: the mask probability.

    python -m launch.sweep --sweep=configs/sweeps/mask_probability.py --workdir=runs/masks

Six probabilities, three seeds. Hardware: two CPU cores, some 3 GB of memory.
See results/mask_probability.
"""

from configs.sweeps.short import SHORT
from contextssl_jax.sweeps import Sweep, Variant

_PROBABILITIES = (0.0, 0.2, 0.5, 0.75, 0.9, 0.98)


def get_sweep() -> Sweep:
    """Return the sweep."""
    points = tuple(
        Variant(
            f"p={p:g}",
            "configs/quickstart.py",
            # Rows draw their probability from a range: as narrow as this, all have the same.
            {"mask.probability": p, "mask.probability_low": p},
            p,
        )
        for p in _PROBABILITIES
    )
    return Sweep(
        title="Figure 4: mask probability",
        points=points,
        axis="mask.probability",
        overrides=SHORT,
    )
