"""SIE on 3DIEBench with rotation and color, for comparison with 3diebench_rotation_color.py.

    python -m contextssl_jax.main --config=sie_3diebench --config.bench3d.path=FOLDER

The actions of both groups are used; those of one group alone with
--config.environments="('rotation',)" or "('color',)". The paper's Table 1 reports color R2 .973 (of
the encoder's features) and 71.0 % linear accuracy, and for rotations alone .671. No full run of
this file has been made yet."""

from ml_collections import ConfigDict

from contextssl_jax.configs import baselines


def get_config() -> ConfigDict:
    """Return the options."""
    return baselines.sie(baselines.bench3d())
