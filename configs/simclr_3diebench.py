"""SimCLR on 3DIEBench with rotation and color, for comparison with 3diebench_rotation_color.py.

    python -m contextssl_jax.main --config=simclr_3diebench --config.bench3d.path=FOLDER

No actions are used. The paper's Table 1 reports R2 .506 for rotation and .148 for color (of the
encoder's features), and 85.3 % linear accuracy. No full run of this file has been made yet.
"""

from ml_collections import ConfigDict

from contextssl_jax.configs import baselines


def get_config() -> ConfigDict:
    """Return the options."""
    return baselines.simclr(baselines.bench3d())
