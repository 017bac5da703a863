"""The paper's loss alone: quickstart.py without the contrast of the encoder's own features.

    python -m contextssl_jax.main --config=objects3d_paper

The groups adapt as in quickstart.py, but the encoder's features classify fewer objects; see
results/classes. Hardware: as in quickstart.py.
"""

from ml_collections import ConfigDict

from contextssl_jax.configs import quickstart


def get_config() -> ConfigDict:
    """Return the options."""
    config = quickstart.get_config()
    config.loss.encoder_weight = 0.0
    return config
