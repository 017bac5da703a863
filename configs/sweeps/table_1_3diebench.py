"""The paper's Tables 1 and 2: every method on 3DIEBench, rotation and color.

    python -m launch.sweep --sweep=configs/sweeps/table_1_3diebench.py --workdir=runs/table_1 \\
        --set=bench3d.path=FOLDER

Sixteen points, three seeds, at full size; data and hardware as in 3diebench_rotation_color.py. No
run of this file has been made yet.
"""

from configs.sweeps import methods
from contextssl_jax.sweeps import Sweep


def get_sweep() -> Sweep:
    """Return the sweep."""
    return Sweep(
        title="Tables 1 and 2",
        points=(
            *methods.invariant(
                "configs/3diebench_rotation_color.py", "3diebench.py", {"mask.probability": 1.0}
            ),
            *methods.equivariant("3diebench.py", methods.ROTATION_COLOR),
        ),
        paper="Table 1",
        official=True,
    )
