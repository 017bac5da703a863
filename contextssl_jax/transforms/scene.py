"""The groups of rendered 3D scenes: the object's rotation, the scene's hues, the light's place.

A scene is seven numbers, in the order of 3DIEBench (arXiv 2302.10283): three Euler angles in
radians, the hue of the floor in turns, the light's polar angle and azimuth in radians, the hue of
the light in turns.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.errors import UserError, lookup
from contextssl_jax.transforms.base import (
    Array,
    Group,
    ParameterSpace,
    difference,
    sample_parameters,
)
from contextssl_jax.transforms.quaternion import from_euler, inverse, multiply, upper

_LIGHT = (0.0, math.pi / 4)  # range of the light's polar angle, 0 is above
_STATISTICS_SEED, _STATISTICS_DRAWS = 0, 1 << 16


class SceneGroup(NamedTuple):
    """A group whose latent is a function of the scene."""

    group: Group
    latent: Callable[[np.ndarray], np.ndarray]  # scenes [n, 7] -> latents [n, dim]


class SceneGroups(NamedTuple):
    """The groups that are told, then those that change untold; see LatentSpace."""

    told: tuple[SceneGroup, ...]
    unconditioned_transforms: tuple[SceneGroup, ...]

    @property
    def all(self) -> tuple[Group, ...]:
        """The groups of whose latents a latent vector consists, in order."""
        return tuple(one.group for one in (*self.told, *self.unconditioned_transforms))

    def transform_params(self, scenes: np.ndarray) -> np.ndarray:
        """Returns the latents of scenes [..., 7], float32 [..., T + nuisances]."""
        flat = scenes.reshape(-1, scenes.shape[-1])
        parts = [one.latent(flat) for one in (*self.told, *self.unconditioned_transforms)]
        transform_params = np.concatenate(parts, axis=1).astype(np.float32)
        return transform_params.reshape(*scenes.shape[:-1], transform_params.shape[-1])

    def space(self) -> ParameterSpace:
        """Returns the space of latents, with the statistics of the law that scenes are drawn by."""
        rng = np.random.default_rng(_STATISTICS_SEED)
        drawn = sample_parameters(self.all, rng, 2 * _STATISTICS_DRAWS)
        told = len(self.told)
        pairs = drawn.reshape(_STATISTICS_DRAWS, 2, -1)
        return ParameterSpace.fit(self.all[:told], self.all[told:], pairs)


def scene_groups(config: ConfigDict) -> SceneGroups:
    """Builds the groups of `groups` and `nuisances` by the section `scene`.

    Raises:
      UserError: a group is none of SCENE_GROUPS or is named twice, or an option is wrong.
    """
    options, names = config.scene, (*config.groups, *config.unconditioned_transforms)
    if len(set(names)) < len(names):
        raise UserError(f"groups, unconditioned_transforms: a group is named twice in {names}")
    if not 0 < options.angle <= 90:
        raise UserError(f"scene.angle: {options.angle} degrees are not above 0 and at most 90")
    if options.hue not in ("circle", "linear"):
        raise UserError(f"scene.hue: {options.hue!r} is neither 'circle' nor 'linear'")
    built = tuple(lookup(SCENE_GROUPS, name, "groups")(options) for name in names)
    return SceneGroups(built[: len(config.groups)], built[len(config.groups) :])


def rotation(options: ConfigDict) -> SceneGroup:
    """Builds the object's rotation R: its latent is the quaternion, the action R_x⁻¹ R_y's."""
    angle = math.radians(options.angle)

    def latent(scenes: np.ndarray) -> np.ndarray:
        return from_euler(scenes[:, :3])

    def sample(rng: np.random.Generator, n: int) -> np.ndarray:
        return from_euler(rng.uniform(-angle, angle, (n, 3))).astype(np.float32)

    def relative(t_x: Array, t_y: Array) -> Array:
        q = multiply(inverse(t_x), t_y)
        return upper(q) if options.canonical else q

    names = ("x", "y", "z", "w")
    return SceneGroup(Group("rotation", names, names, sample, relative), latent)


def color(options: ConfigDict) -> SceneGroup:
    """Builds the hues of floor and light; on the circle, their cosine and sine stand for them."""
    circle = options.hue == "circle"

    def told(hues: np.ndarray) -> np.ndarray:
        turns = 2 * np.pi * hues
        parts = [np.cos(turns), np.sin(turns)] if circle else [hues]
        return np.stack(parts, axis=-1).reshape(len(hues), 2 * len(parts))

    def latent(scenes: np.ndarray) -> np.ndarray:
        return told(scenes[:, [3, 6]])

    def sample(rng: np.random.Generator, n: int) -> np.ndarray:
        return told(rng.random((n, 2))).astype(np.float32)

    def relative(t_x: Array, t_y: Array) -> Array:
        if not circle:
            return difference(t_x, t_y)
        numpy = jnp if isinstance(t_x, jax.Array) else np
        turned = []
        for i in (0, 2):  # the difference of angles, by its cosine and sine
            (cx, sx), (cy, sy) = ((t[..., i], t[..., i + 1]) for t in (t_x, t_y))
            turned += [cx * cy + sx * sy, cx * sy - sx * cy]
        return numpy.stack(turned, axis=-1)

    hues = ("floor", "light")
    names = tuple(f"{hue}_{of}" for hue in hues for of in ("cos", "sin")) if circle else hues
    return SceneGroup(Group("color", names, names, sample, relative), latent)


def light(options: ConfigDict) -> SceneGroup:
    """Builds the light's place: the horizontal part of the unit vector towards it."""
    del options

    def of(polar: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
        return np.sin(polar)[:, None] * np.stack([np.cos(azimuth), np.sin(azimuth)], axis=1)

    def latent(scenes: np.ndarray) -> np.ndarray:
        return of(scenes[:, 4], scenes[:, 5])

    def sample(rng: np.random.Generator, n: int) -> np.ndarray:
        return of(rng.uniform(*_LIGHT, n), rng.uniform(0, 2 * np.pi, n)).astype(np.float32)

    names = ("x", "y")
    return SceneGroup(Group("light", names, names, sample, difference), latent)


SCENE_GROUPS: dict[str, Callable[[ConfigDict], SceneGroup]] = {
    "rotation": rotation,
    "color": color,
    "light": light,
}
