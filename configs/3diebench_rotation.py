r"""One model of 3DIEBench that follows rotation, or does not, as its context says (Table 4).

    python -m contextssl_jax.main --config=configs/3diebench_rotation.py \
        --config.bench3d.path=FOLDER

As 3diebench_rotation_color.py, where data, hardware and time are, but contexts show rotations or
nothing at all. The paper says R2 .738 for rotation after 126 tokens of the rotation context, .473
after those of the other, which at 30 tokens is .377. No full run of this file has been made yet.
"""

from ml_collections import ConfigDict

from configs import bench3d


def get_config() -> ConfigDict:
    """Returns the options."""
    config = bench3d.rotation_color()
    config.groups = ("rotation",)  # hues and light vary untold
    config.environments = ("rotation", "none")
    return config
