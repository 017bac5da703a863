"""Labels that depend on the context: 3DIEBench's classes, shifted by 10 under rotation (Table 5).

    python -m contextssl_jax.main --config=configs/3diebench_labels.py --config.bench3d.path=FOLDER

As 3diebench_rotation_color.py, where data, hardware and time are, but the transformer learns
labels, and no mask hides any of the context. After 126 tokens the paper's Table 5 says 83.0 % for
either context; of rotation R2 .666 and .539 under the rotation and the color context, of color .093
and .982. No full run of this file has been made yet.
"""

from ml_collections import ConfigDict

from configs import bench3d


def get_config() -> ConfigDict:
    """Returns the options."""
    config = bench3d.rotation_color()
    config.method = "supervised"
    config.mask.update(probability=0.0, hide_own_x=False)
    return config
