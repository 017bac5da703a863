"""SimCLR on the built-in objects with rotation and color, for comparison with quickstart.py.

    python -m contextssl_jax.main --config=simclr_objects3d

No actions are used. Hardware: as in quickstart.py. results/table_1 has a third of its steps.
"""

from ml_collections import ConfigDict

from contextssl_jax.configs import baselines


def get_config() -> ConfigDict:
    """Return the options."""
    return baselines.simclr(baselines.objects3d())
