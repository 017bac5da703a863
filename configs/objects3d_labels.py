"""Labels that depend on the context: the objects' classes, shifted by 10 under rotation (Table 5).

    python -m contextssl_jax.main --config=objects3d_labels

As objects3d_paper.py, but the transformer predicts labels, and no mask hides parts of the context.
Hardware: as in quickstart.py.
"""

from ml_collections import ConfigDict

from contextssl_jax.configs import objects3d_paper


def get_config() -> ConfigDict:
    """Return the options."""
    config = objects3d_paper.get_config()
    config.method = "supervised"
    config.mask.update(probability=0.0, probability_low=0.0, hide_own_x=False)
    return config
