"""The paper's Table 4 on the built-in objects: rotation or none, one model.

    python -m launch.sweep --sweep=configs/sweeps/table_4_objects3d.py --workdir=runs/table_4

One point, three seeds. Hardware: two CPU cores, some 3 GB of memory.
See results/table_4.
"""

from configs.sweeps.short import SHORT
from contextssl_jax.sweeps import Sweep, Variant


def get_sweep() -> Sweep:
    """Return the sweep."""
    return Sweep(
        title="Table 4 on built-in objects",
        points=(Variant("ContextSSL", "configs/objects3d_rotation.py"),),
        overrides=SHORT | {"eval.environments": ("rotation", "none")},
        paper="Table 4",
    )
