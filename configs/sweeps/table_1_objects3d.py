"""The paper's Tables 1 and 2 on the built-in objects: every method, rotation and color.

    python -m launch.sweep --sweep=configs/sweeps/table_1_objects3d.py --workdir=runs/table_1

Sixteen points, three seeds, all of 1,200 steps of the same batches. Hardware: two CPU cores, some
3 GB of memory. Time: two to three minutes a run.
"""

from typing import Any

from configs.sweeps.short import SHORT
from contextssl_jax.sweeps import Point, Sweep

_ONE = {"rotation": ("rotation",), "color": ("color",), "rotation, color": ("rotation+color",)}
_UNTOLD: dict[str, Any] = {"environments": ("none",), "eval.environments": ("none",)}
# Masks that hide all but the token itself: c = 0.
_ALONE = {"mask.probability": 1.0, "mask.probability_low": 1.0}


def get_sweep() -> Sweep:
    """Returns the sweep."""
    quickstart = "configs/quickstart.py"
    points = [
        Point("ContextSSL", quickstart),
        Point("SimCLR", "configs/simclr_objects3d.py"),
        Point("SimCLR+ (c = 0)", quickstart, {"method": "simclr_plus", **_UNTOLD, **_ALONE}),
        Point("SimCLR+", quickstart, {"method": "simclr_plus", **_UNTOLD}),
        Point("VICReg", "configs/vicreg_objects3d.py"),
        Point("VICReg+ (c = 0)", quickstart, {"method": "vicreg_plus", **_UNTOLD, **_ALONE}),
        Point("VICReg+", quickstart, {"method": "vicreg_plus", **_UNTOLD}),
    ]
    for name, method in (("EquiMod", "equimod"), ("SEN", "sen"), ("SIE", "sie")):
        points += [
            Point(f"{name}, {told}", f"configs/{method}_objects3d.py", {"environments": shown})
            for told, shown in _ONE.items()
        ]
    return Sweep(
        title="Tables 1 and 2 on built-in objects",
        points=tuple(points),
        overrides=SHORT,
    )
