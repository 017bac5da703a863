"""Objects composed of a few parts: a class is a random recipe, an instance a jitter of it.

All classes share a body plan, so that the rotation can be inferred from any view: a body, a head in
front (+x), a fin on top (+z), a wing at one side (+y), a tail (-x), and two feet of different size
(-z), each of its own brightness. The class determines which parts exist, and their kind, size,
position and hue.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from contextssl_jax.transforms.quaternion import from_euler, to_matrix

Array = Any  # a NumPy array on the host, a JAX array on the device

PARTS = 7
RADIUS = 0.95  # radius of the ball around the origin that contains every object

_CLASSES = 0  # stream of randomness of the recipes; instances use those of their splits

# By part: body, head, fin, wing, tail, foot, other foot.
_TOWARDS = np.array(
    [[0, 0, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0], [-1, 0, 0], [0.5, 0.5, -1], [-0.6, -0.5, -1]]
)
_HALF = np.array(  # half-lengths along x, y, z
    [
        *([0.44, 0.34, 0.30], [0.24, 0.20, 0.20], [0.12, 0.10, 0.26], [0.14, 0.34, 0.07]),
        *([0.30, 0.09, 0.09], [0.11, 0.11, 0.22], [0.08, 0.08, 0.16]),
    ]
)
_VALUE = np.array([0.80, 0.34, 0.60, 0.95, 0.42, 0.18, 0.70])  # brightness
_SATURATION = np.array([0.16, 0.85, 0.80, 0.05, 0.75, 0.50, 0.70])
_OPTIONAL = (3, 4, 5, 6)  # parts of which a class may lack up to two


class Shape(NamedTuple):
    """Objects of P parts, in the object's frame; leading axes are arbitrary.

    A part is a box with rounded edges, or its solid of revolution about y: a disc, rod or ring.
    """

    frame: Array  # rows of the map from the object's frame to the part's, [P, 3, 4]
    core: Array  # half-lengths before rounding, [P, 3]; x is the width of revolved parts
    rounding: Array  # radius of the edges, [P]
    turned: Array  # 1 for solids of revolution, else 0, [P]
    ring: Array  # radius of a ring's circle, [P]
    taper: Array  # fraction of the width lost towards +y, per unit of length, [P]
    color: Array  # linear RGB in [0, 1], [P, 3]


class Recipes(NamedTuple):
    """The parameters of the shapes of n objects: the recipes of classes, or jittered instances."""

    size: np.ndarray  # log of the half-lengths relative to the body plan, [n, P, 3]
    offset: np.ndarray  # offset of the part's position, [n, P, 3]
    tilt: np.ndarray  # Euler angles, [n, P, 3]
    axis: np.ndarray  # index of the object's axis along the part's y, int [n, P]
    turned: np.ndarray  # bool [n, P]
    hollow: np.ndarray  # radius of the ring as a fraction of a revolved part's radius, [n, P]
    rounding: np.ndarray  # fraction of the smallest half-length, [n, P]
    taper: np.ndarray  # fraction of the width lost towards +y, [n, P]
    hue: np.ndarray  # turns, [n, P]
    value: np.ndarray  # log brightness relative to the body plan, [n, P]
    present: np.ndarray  # bool [n, P]


def draw_recipes(classes: int) -> Recipes:
    """Sample the recipes of that many classes, the same in every run."""
    return _stack([_recipe(np.random.default_rng((_CLASSES, c))) for c in range(classes)])


def draw_instances(
    recipes: Recipes, classes: np.ndarray, seeds: Sequence[tuple[int, ...]]
) -> Shape:
    """Sample instances of the classes [n], each from its own seed; leaves [n, P, ...], float32."""
    jitter = np.stack([np.random.default_rng(seed).standard_normal((PARTS, 7)) for seed in seeds])
    plan = Recipes(*(leaf[classes] for leaf in recipes))
    return compose(
        plan._replace(
            size=plan.size + 0.08 * jitter[..., :3],
            offset=plan.offset + 0.02 * jitter[..., 3:6],
            value=plan.value + 0.06 * jitter[..., 6],
        )
    )


def compose(plan: Recipes) -> Shape:
    """Compose the parts, and scale each object to the ball of RADIUS."""
    half = _HALF * np.exp(plan.size)
    turns = _axes_first(plan.axis)  # [n, P, 3, 3], the part's axes in the untilted frame
    own = np.einsum("npij,npi->npj", np.abs(turns), half)  # half-lengths along the part's axes
    width = np.minimum(own[..., 0], own[..., 2])
    own = np.where(plan.turned[..., None], np.stack([width, own[..., 1], width], -1), own)
    half = np.einsum("npij,npj->npi", np.abs(turns), own)

    extent = np.abs(_TOWARDS) * (half[:, :1] + 0.5 * half)
    center = np.sign(_TOWARDS) * extent + plan.offset
    tilt: np.ndarray = np.array(to_matrix(from_euler(plan.tilt)))
    axes = np.moveaxis(tilt, (0, 1), (-2, -1)) @ turns  # the part's axes, as columns

    corners = np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, 8)
    far = center[..., None] + axes @ (own[..., None] * corners)
    distance = np.where(plan.present[..., None], np.linalg.norm(far, axis=-2), 0).max((-2, -1))
    scale = (RADIUS / distance)[:, None]
    center, own = center * scale[..., None], own * scale[..., None]

    ring = np.where(plan.turned, plan.hollow * own[..., 0], 0)
    width = own[..., 0] - ring
    rounding = plan.rounding * np.minimum(width, own[..., 1:].min(-1))
    core = np.stack([width, own[..., 1], own[..., 2]], -1) - rounding[..., None]
    inward = np.swapaxes(axes, -1, -2)
    frame = np.concatenate([inward, -inward @ center[..., None]], axis=-1)
    color = hsv_to_rgb(plan.hue, _SATURATION, np.clip(_VALUE * np.exp(plan.value), 0, 1))
    shape = Shape(frame, core, rounding, plan.turned, ring, plan.taper / (2 * own[..., 1]), color)
    present = [plan.present.reshape(*plan.present.shape, *[1] * (x.ndim - 2)) for x in shape]
    shape = Shape(*(np.where(p, x, 0) for p, x in zip(present, shape, strict=True)))
    # An absent part is a ball of negative radius, which no ray comes near.
    shape = shape._replace(rounding=np.where(plan.present, rounding, -10.0))
    return Shape(*(leaf.astype(np.float32) for leaf in shape))


def hsv_to_rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Convert hue (turns), saturation and value in [0, 1] to RGB [..., 3]."""
    k = (np.array([5.0, 3.0, 1.0]) + hue[..., None] * 6) % 6
    wave = np.clip(np.minimum(k, 4 - k), 0, 1)
    return value[..., None] * (1 - saturation[..., None] * wave)


def _recipe(rng: np.random.Generator) -> Recipes:
    """Sample the recipe of one class."""
    present = np.ones(PARTS, bool)
    present[rng.choice(_OPTIONAL, rng.integers(0, 3), replace=False)] = False
    turned = rng.random(PARTS) < 0.5
    return Recipes(
        size=rng.uniform(-0.45, 0.45, (PARTS, 3)),
        offset=rng.uniform(-0.08, 0.08, (PARTS, 3)) * (np.arange(PARTS) > 0)[:, None],
        tilt=rng.uniform(-0.35, 0.35, (PARTS, 3)) * (np.arange(PARTS) > 0)[:, None],
        axis=rng.integers(0, 3, PARTS),
        turned=turned,
        # For thick parts only, since thin rings are less than a pixel wide.
        hollow=np.where(rng.random(PARTS) < 0.35, rng.uniform(0.45, 0.65, PARTS), 0.0)
        * (np.arange(PARTS) < 3),
        rounding=rng.choice([0.2, 0.5, 1.0], PARTS),
        # A strongly tapered body would be disconnected from the parts attached to it.
        taper=np.where(rng.random(PARTS) < 0.4, rng.uniform(0.3, 0.7, PARTS), 0.0)
        * np.where(np.arange(PARTS) > 0, 1.0, 0.4),
        hue=rng.random(PARTS),
        value=np.zeros(PARTS),
        present=present,
    )


def _axes_first(axis: np.ndarray) -> np.ndarray:
    """Return rotations [n, P, 3, 3] whose second column is the unit vector of the axis [n, P]."""
    cycle = np.eye(3)
    return np.stack([np.roll(cycle, shift, axis=0) for shift in (-1, 0, 1)])[axis]


def _stack(plans: list[Recipes]) -> Recipes:
    return Recipes(*(np.stack(leaves) for leaves in zip(*plans, strict=True)))
