"""SIE on 3DIEBench with rotation and color, beside 3diebench_rotation_color.py, where data are.

    python -m contextssl_jax.main --config=configs/sie_3diebench.py --config.bench3d.path=FOLDER

Actions of both groups are told; of one group alone with --config.environments="('rotation',)" or
"('color',)". The paper's Table 1 says color R2 .973 (of the encoder's features) and 71.0 % linear
accuracy, and for rotations alone .671. No full run of this file has been made yet.
"""

from ml_collections import ConfigDict

from configs import baselines


def get_config() -> ConfigDict:
    """Returns the options."""
    return baselines.sie(baselines.bench3d())
