r"""As 3diebench_rotation_color.py, with standardized actions and standardized targets.

    python -m contextssl_jax.main --config=3diebench_rotation_color_standardized \
        --config.bench3d.path=FOLDER

Actions enter the transformer standardized, with a norm of 14 (model.action_scale), since raw ones
have a norm of about 1 beside features of 512 entries. The predictor's targets are standardized, so
that all entries count equally: with the same lambda, a squared error weighs 6.7 times as much as in
the official code for x, y and z of a quaternion, 47 times for its w, and 12 times for hues. No full
run of this file has been made yet.
"""

from ml_collections import ConfigDict

from contextssl_jax.configs import bench3d


def get_config() -> ConfigDict:
    """Return the options."""
    return bench3d.rotation_color_standardized()
