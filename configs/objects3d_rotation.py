"""One model, equivariant or invariant to an object's rotation by its context (as in Table 4).

    python -m contextssl_jax.main --config=objects3d_rotation

As quickstart.py, but contexts observe rotations or no group. Colors and light vary as unconditioned
transforms. Hardware: as in quickstart.py.
"""

from ml_collections import ConfigDict

from contextssl_jax.configs import quickstart


def get_config() -> ConfigDict:
    """Return the options."""
    config = quickstart.get_config()
    config.groups = ("rotation",)
    config.unconditioned_transforms = ("color", "light")
    config.environments = ("rotation", "none")
    return config
