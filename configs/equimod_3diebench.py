"""EquiMod on 3DIEBench with rotation and color, for comparison with 3diebench_rotation_color.py.

    python -m contextssl_jax.main --config=equimod_3diebench --config.bench3d.path=FOLDER

The actions of both groups are used; those of one group alone with
--config.environments="('rotation',)" or "('color',)". The paper's Table 1 reports R2 .512 for
rotation and .097 for color (of the encoder's features), and 82.4 % linear accuracy, likely of the
model that uses rotations alone. No full run of this file has been made yet."""

from ml_collections import ConfigDict

from contextssl_jax.configs import baselines


def get_config() -> ConfigDict:
    """Return the options."""
    return baselines.equimod(baselines.bench3d())
