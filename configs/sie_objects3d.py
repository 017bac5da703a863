"""SIE on the built-in objects with rotation and color, beside quickstart.py.

    python -m contextssl_jax.main --config=configs/sie_objects3d.py

Actions of both groups are told; of one group alone with --config.environments="('rotation',)" or
"('color',)". Hardware: as there.
results/table_1 is of a third of its steps.
"""

from ml_collections import ConfigDict

from configs import baselines


def get_config() -> ConfigDict:
    """Returns the options."""
    return baselines.sie(baselines.objects3d())
