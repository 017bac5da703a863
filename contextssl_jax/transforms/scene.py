"""Groups of rendered 3D scenes: the object's rotation, the scene's hues, the light's direction.

A scene is seven numbers, in the order of 3DIEBench (arXiv 2302.10283): three Euler angles in
radians, the hue of the floor in turns, the light's polar angle and azimuth in radians, the hue of
the light in turns.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.transforms.base import Array, Group, difference
from contextssl_jax.transforms.quaternion import from_euler, inverse, multiply, upper

_NORM_TOLERANCE = 1e-2  # of unit quaternions that a user passes
_LIGHT = (0.0, math.pi / 4)  # range of the light's polar angle; 0 is the zenith


def rotation(options: ConfigDict) -> Group:
    """Build the object's rotation R: its parameters are the quaternion, its action R_x⁻¹ R_y."""
    angle = math.radians(options.angle)

    def from_scene(scenes: np.ndarray) -> np.ndarray:
        return from_euler(scenes[:, :3])

    def sample(rng: np.random.Generator, n: int) -> np.ndarray:
        return from_euler(rng.uniform(-angle, angle, (n, 3))).astype(np.float32)

    def relative(t_x: Array, t_y: Array) -> Array:
        q = multiply(inverse(t_x), t_y)
        return upper(q) if options.canonical else q

    def check_action(action: np.ndarray) -> np.ndarray:
        norms = np.linalg.norm(action, axis=-1)
        if not np.allclose(norms, 1, atol=_NORM_TOLERANCE):
            raise ValueError(
                f"rotation: a quaternion has norm {norms[np.abs(norms - 1).argmax()]:.3g}, not 1."
                " Pass unit quaternions (x, y, z, w)."
            )
        return upper(action) if options.canonical else action

    names = ("x", "y", "z", "w")
    return Group(
        *("rotation", names, names, sample, relative),
        from_scene=from_scene,
        param_units=f"the unit quaternion of the object's rotation R, by up to {options.angle:g}"
        " degrees about each axis",
        action_units="the unit quaternion of R_x⁻¹ R_y",
        check_action=check_action,
    )


def color(options: ConfigDict) -> Group:
    """Build the hues of floor and light, in turns or as points (cosine, sine) on the circle."""
    circle = options.hue == "circle"

    def from_hues(hues: np.ndarray) -> np.ndarray:
        turns = 2 * np.pi * hues
        parts = [np.cos(turns), np.sin(turns)] if circle else [hues]
        return np.stack(parts, axis=-1).reshape(len(hues), 2 * len(parts))

    def from_scene(scenes: np.ndarray) -> np.ndarray:
        return from_hues(scenes[:, [3, 6]])

    def sample(rng: np.random.Generator, n: int) -> np.ndarray:
        return from_hues(rng.random((n, 2))).astype(np.float32)

    def relative(t_x: Array, t_y: Array) -> Array:
        if not circle:
            return difference(t_x, t_y)
        numpy = jnp if isinstance(t_x, jax.Array) else np
        turned = []
        for i in (0, 2):  # cosine and sine of the difference of angles
            (cx, sx), (cy, sy) = ((t[..., i], t[..., i + 1]) for t in (t_x, t_y))
            turned += [cx * cy + sx * sy, cx * sy - sx * cy]
        return numpy.stack(turned, axis=-1)

    hues = ("floor", "light")
    names = tuple(f"{hue}_{of}" for hue in hues for of in ("cos", "sin")) if circle else hues
    of = "cosine and sine of" if circle else "in turns:"
    return Group(
        *("color", names, names, sample, relative),
        from_scene=from_scene,
        param_units=f"{of} the hues of the floor and of the light",
        action_units=f"{of} the differences of the two hues, y minus x",
    )


def light(options: ConfigDict) -> Group:
    """Build the light's direction: the horizontal part of the unit vector towards it."""
    del options

    def horizontal(polar: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
        return np.sin(polar)[:, None] * np.stack([np.cos(azimuth), np.sin(azimuth)], axis=1)

    def from_scene(scenes: np.ndarray) -> np.ndarray:
        return horizontal(scenes[:, 4], scenes[:, 5])

    def sample(rng: np.random.Generator, n: int) -> np.ndarray:
        polar, azimuth = rng.uniform(*_LIGHT, n), rng.uniform(0, 2 * np.pi, n)
        return horizontal(polar, azimuth).astype(np.float32)

    names = ("x", "y")
    return Group(
        *("light", names, names, sample, difference),
        from_scene=from_scene,
        param_units="the horizontal part of the unit vector towards the light",
        action_units="the difference of the two vectors, y minus x",
    )


SCENE_GROUPS: dict[str, Callable[[ConfigDict], Group]] = {
    "rotation": rotation,
    "color": color,
    "light": light,
}
