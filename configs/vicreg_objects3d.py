"""VICReg on the built-in objects with rotation and color, beside quickstart.py.

    python -m contextssl_jax.main --config=configs/vicreg_objects3d.py

No action is told. Hardware: as there.
results/table_1 is of a third of its steps.
"""

from ml_collections import ConfigDict

from configs import baselines


def get_config() -> ConfigDict:
    """Returns the options."""
    return baselines.vicreg(baselines.objects3d())
