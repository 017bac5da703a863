"""The paper's Table 5 on the built-in objects: labels that depend on the context.

    python -m launch.sweep --sweep=configs/sweeps/table_5_objects3d.py --workdir=runs/table_5

Three points, three seeds. Hardware: two CPU cores, some 3 GB of memory.
See results/table_5.
"""

from configs.sweeps.short import SHORT
from contextssl_jax.sweeps import Sweep, Variant


def get_sweep() -> Sweep:
    """Return the sweep."""
    labels = "configs/objects3d_labels.py"
    return Sweep(
        title="Table 5 on built-in objects",
        points=(
            Variant("supervised", labels),
            Variant("supervised, no predictor", labels, {"loss.predictor_weight": 0.0}),
            # y tokens then do not see their own x, whose action says which context it is.
            Variant("supervised, pair mask", labels, {"mask.hide_own_x": True}),
        ),
        overrides=SHORT,
        paper="Table 5",
    )
