"""SEN on the built-in objects with rotation and color, for comparison with quickstart.py.

    python -m contextssl_jax.main --config=sen_objects3d

The actions of both groups are used; those of one group alone with
--config.environments="('rotation',)" or
"('color',)". Hardware: as in quickstart.py. results/table_1 has a third of its steps.
"""

from ml_collections import ConfigDict

from contextssl_jax.configs import baselines


def get_config() -> ConfigDict:
    """Return the options."""
    return baselines.sen(baselines.objects3d())
