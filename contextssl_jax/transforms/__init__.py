"""Transformation groups by name; a new group is one function and one line here.

A builder takes the side of the square image in pixels and the options of the config section that
bears the group's name.
"""

from collections.abc import Callable

from contextssl_jax.transforms.base import (
    Group,
    ParameterSpace,
    apply_groups,
    difference,
    sample_parameters,
)
from contextssl_jax.transforms.blur import blur
from contextssl_jax.transforms.color import color
from contextssl_jax.transforms.crop import crop
from contextssl_jax.transforms.flip import flip

GROUPS: dict[str, Callable[..., Group]] = {
    "flip": flip,
    "crop": crop,
    "color": color,
    "blur": blur,
}

__all__ = ["GROUPS", "Group", "ParameterSpace", "difference", "apply_groups", "sample_parameters"]
