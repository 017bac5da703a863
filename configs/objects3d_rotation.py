"""One model that follows an object's rotation, or does not, as its context says (Table 4's way).

    python -m contextssl_jax.main --config=configs/objects3d_rotation.py

As quickstart.py, but contexts show rotations or nothing at all: the same group is asked to be
followed and to be forgotten. Colors and light vary untold. Hardware: as there.
"""

from ml_collections import ConfigDict

from configs import quickstart


def get_config() -> ConfigDict:
    """Returns the options."""
    config = quickstart.get_config()
    config.groups = ("rotation",)
    config.unconditioned_transforms = ("color", "light")
    config.environments = ("rotation", "none")
    return config
