"""Shared parts of the baselines' configs; no config by itself.

`cifar10`, `objects3d` and `bench3d` return the data, encoder and training of ContextSSL's configs
with a projector in place of the context transformer; the functions named after methods select the
method. Coefficients are those of SIE's comparison (arXiv 2302.10283) unless a comment says
otherwise.
"""

from ml_collections import ConfigDict

from contextssl_jax.configs import bench3d as shared
from contextssl_jax.configs import objects3d_paper, sizes


def cifar10(size: str) -> ConfigDict:
    """Return crop and blur on CIFAR-10 in a size of `sizes`."""
    config = sizes.cifar10(size)
    if size == "full":
        _train_projector(config)
        config.loss.temperature = 0.5  # usual for CIFAR-10
    # Usual for CIFAR-10; doubled since the variance term has a factor of one half here.
    config.loss.update(invariance_weight=25.0, variance_weight=50.0)
    config.environments = ("crop+blur",)
    return config


def objects3d() -> ConfigDict:
    """Return rotation and color of the built-in objects, as objects3d_paper.py."""
    config = objects3d_paper.get_config()
    # An action rotates a hue on its circle, which a layer that only adds the action cannot
    # represent.
    config.model.projector.predictor = "hypernetwork"
    config.environments = ("rotation+color",)
    return config


def bench3d() -> ConfigDict:
    """Return rotation and color of 3DIEBench, as 3diebench_rotation_color_standardized.py."""
    config = shared.rotation_color_standardized()
    _train_projector(config)
    config.environments = ("rotation+color",)
    return config


def simclr(config: ConfigDict) -> ConfigDict:
    """Select SimCLR, which uses no actions, so the environment has no effect."""
    config.method = "simclr"
    config.environments = ("none",)
    return config


def vicreg(config: ConfigDict) -> ConfigDict:
    """Select VICReg, which uses no actions, so the environment has no effect."""
    config.method = "vicreg"
    config.environments = ("none",)
    return config


def equimod(config: ConfigDict) -> ConfigDict:
    """Select EquiMod."""
    config.method = "equimod"
    return config


def sen(config: ConfigDict) -> ConfigDict:
    """Select SEN."""
    config.method = "sen"
    return config


def sie(config: ConfigDict) -> ConfigDict:
    """Select SIE; each half of the features has a projector of half the widths."""
    config.method = "sie"
    projector = config.model.projector
    projector.update(widths=tuple(w // 2 for w in projector.widths), predictor="hypernetwork")
    config.loss.equivariance_weight = 0.45 * config.loss.invariance_weight
    return config


def _train_projector(config: ConfigDict) -> None:
    """Set a learning rate for projectors instead of the transformer, and no clamp of cosines."""
    config.train.update(learning_rate=1e-3, weight_decay=1e-6)
    config.loss.clamp = False
