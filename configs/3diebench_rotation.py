r"""One model of 3DIEBench, equivariant or invariant to rotation by its context (Table 4).

    python -m contextssl_jax.main --config=3diebench_rotation \
        --config.bench3d.path=FOLDER

As 3diebench_rotation_color.py, which describes data and hardware, but contexts observe rotations
or no group. The paper reports R2 .738 for rotation after 126 tokens of the rotation context, and
.473 after those of the other context (.377 after 30). No full run of this file has been made yet.
"""

from ml_collections import ConfigDict

from contextssl_jax.configs import bench3d


def get_config() -> ConfigDict:
    """Return the options."""
    config = bench3d.rotation_color()
    config.groups = ("rotation",)  # hues and light are unconditioned
    config.environments = ("rotation", "none")
    return config
