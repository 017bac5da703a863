"""The paper's Tables 1 and 2 on the built-in objects: every method, rotation and color.

    python -m launch.sweep --sweep=configs/sweeps/table_1_objects3d.py --workdir=runs/table_1

Sixteen points, three seeds, all of 1,200 steps of the same batches. Hardware: two CPU cores, some
3 GB of memory.
See results/table_1.
"""

from configs.sweeps import methods
from configs.sweeps.short import SHORT
from contextssl_jax.sweeps import Sweep


def get_sweep() -> Sweep:
    """Return the sweep."""
    alone = {"mask.probability": 1.0, "mask.probability_low": 1.0}
    return Sweep(
        title="Tables 1 and 2 on built-in objects",
        points=(
            *methods.invariant("configs/quickstart.py", "objects3d.py", alone),
            *methods.equivariant("objects3d.py", methods.ROTATION_COLOR),
        ),
        overrides=SHORT,
        paper="Table 1",
    )
