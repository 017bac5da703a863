"""One model, equivariant to an object's rotation or to the blur of its image by its context.

    python -m contextssl_jax.main --config=objects3d_rotation_blur

A scene group with an image group: the renderer draws the rotated object, then the image is
blurred. As quickstart.py, with blur in place of the hues, which vary like the light as
unconditioned transforms. Hardware: two CPU cores, some 3 GB of memory. Expected numbers (seed 0,
linear probe, single views of held-out objects, after 126 tokens): R2 .84 for rotation under the
rotation context and .03 under the blur context, .96 for blur under the blur context and .04 under
the rotation context; see results/objects3d_rotation_blur.
"""

from ml_collections import ConfigDict

from contextssl_jax.configs import quickstart


def get_config() -> ConfigDict:
    """Return the options."""
    config = quickstart.get_config()
    config.groups = config.environments = ("rotation", "blur")
    config.unconditioned_transforms = ("color", "light")
    return config
