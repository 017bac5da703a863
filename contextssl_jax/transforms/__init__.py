"""Transformation groups by name; a new group is one function and one line here.

The builder of an image group takes the side of the square image in pixels and the options of the
config section that has the group's name. Image groups are available on every data set. On 3D data
sets the groups of SCENE_GROUPS are available as well and take precedence: there, `color` is the
hues of floor and light, not color jitter.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from contextssl_jax.errors import UserError, lookup
from contextssl_jax.transforms.base import Group, apply_groups, difference, sample_parameters
from contextssl_jax.transforms.blur import blur
from contextssl_jax.transforms.color import color
from contextssl_jax.transforms.crop import crop
from contextssl_jax.transforms.flip import flip
from contextssl_jax.transforms.scene import SCENE_GROUPS
from contextssl_jax.transforms.space import ParameterSpace

GROUPS: dict[str, Callable[..., Group]] = {
    "flip": flip,
    "crop": crop,
    "color": color,
    "blur": blur,
}

__all__ = [
    "GROUPS",
    "Group",
    "ParameterSpace",
    "apply_groups",
    "build_groups",
    "build_space",
    "difference",
    "sample_parameters",
]


def build_space(config: ConfigDict, side: int, scenes: bool = False) -> ParameterSpace:
    """Build the space of the options `groups` and `unconditioned_transforms`.

    Args:
      config: the options.
      side: side of the square image in pixels.
      scenes: whether the data set's views are of 3D scenes, so that SCENE_GROUPS are available.

    Raises:
      UserError: see build_groups.
    """
    return ParameterSpace.fit(*build_groups(config, side, scenes))


def build_groups(
    config: ConfigDict, side: int, scenes: bool
) -> tuple[tuple[Group, ...], tuple[Group, ...]]:
    """Build the conditioned groups and the unconditioned transforms of a config.

    Args:
      config: the options.
      side: side of the square image in pixels.
      scenes: whether the data set's views are of 3D scenes, so that SCENE_GROUPS are available.

    Raises:
      UserError: a group is unknown or is named twice, or an option is wrong.
    """
    names = (*config.groups, *config.unconditioned_transforms)
    if len(set(names)) < len(names):
        raise UserError(
            "--config.groups, --config.unconditioned_transforms: a group is named twice in"
            f" {names}. Name it once."
        )
    groups = tuple(_build_group(name, config, side, scenes) for name in names)
    return groups[: len(config.groups)], groups[len(config.groups) :]


def _build_group(name: str, config: ConfigDict, side: int, scenes: bool) -> Group:
    if scenes and name in SCENE_GROUPS:
        return SCENE_GROUPS[name](config.scene)
    builder = lookup({**SCENE_GROUPS, **GROUPS} if scenes else GROUPS, name, "--config.groups")
    if name not in config:
        raise UserError(
            f"--config.groups: {name!r} has no section config.{name} with its options. Add"
            " the section."
        )
    return builder(side, **config[name])
