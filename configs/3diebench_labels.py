"""Labels that depend on the context: 3DIEBench's classes, shifted by 10 under rotation (Table 5).

    python -m contextssl_jax.main --config=3diebench_labels --config.bench3d.path=FOLDER

As 3diebench_rotation_color.py, which describes data and hardware, but the transformer predicts
labels, and no mask hides parts of the context. After 126 tokens the paper's Table 5 reports 83.0 %
for either context; R2 .666 and .539 for rotation under the rotation and the color context, .093 and
.982 for color. No full run of this file has been made yet.
"""

from ml_collections import ConfigDict

from contextssl_jax.configs import bench3d


def get_config() -> ConfigDict:
    """Return the options."""
    config = bench3d.rotation_color()
    config.method = "supervised"
    config.mask.update(probability=0.0, hide_own_x=False)
    return config
