"""The transformation group, and sampling and rendering of several groups."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

Array = Any  # a NumPy array on the host, a JAX array on the device


@dataclass(frozen=True)
class Group:
    """A transformation group: how its parameters are sampled, compared and rendered.

    An image group acts on the finished image by `render`. A scene group has no `render`: its
    parameters are input of the data set's own renderer, or fixed by a stored scene (`from_scene`).

    Attributes:
      name: name in the options, in environments and in reports.
      parameter_names: names of the entries of its parameters, in order.
      action_names: names of the entries of its action, in order.
      sample: (generator, n) -> float32 [n, dim], parameters in the group's own units.
      relative: (t_x [..., dim], t_y [..., dim]) -> action [..., len(action_names)]; accepts NumPy
        and JAX arrays.
      identity: parameters that leave an image unchanged; None if there are none.
      render: (images [N, H, W, 3] in [0, 1], parameters [N, dim]) -> images, on the device; None
        for a scene group.
      from_scene: scenes [n, 7] -> parameters [n, dim], of a scene group; see transforms.scene.
      stage: image groups are rendered in ascending order of stage, whatever their order in the
        config.
      param_units: units and ranges of the parameters, a phrase for users of a trained model.
      action_units: those of the action.
      check_action: returns actions [n, entries] of a user in the form that `relative` gives, or
        raises ValueError.
    """

    name: str
    parameter_names: tuple[str, ...]
    action_names: tuple[str, ...]
    sample: Callable[[np.random.Generator, int], np.ndarray]
    relative: Callable[[Array, Array], Array]
    identity: tuple[float, ...] | None = None
    render: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    from_scene: Callable[[np.ndarray], np.ndarray] | None = None
    stage: int = 0
    param_units: str = "own units"
    action_units: str = "own units"
    check_action: Callable[[np.ndarray], np.ndarray] = lambda action: action

    @property
    def dim(self) -> int:
        """Return the number of parameters."""
        return len(self.parameter_names)


def difference(t_x: Array, t_y: Array) -> Array:
    """Return the action of a group whose parameters are compared by subtraction, t_y - t_x."""
    return t_y - t_x


def sample_parameters(
    groups: Sequence[Group],
    rng: np.random.Generator,
    n: int,
    given: Mapping[str, np.ndarray] | None = None,
) -> np.ndarray:
    """Sample the parameters of all groups, float32 [n, sum of dims].

    Args:
      groups: groups in the order of the parameter vector; sampled in this order.
      rng: source of randomness.
      n: number of views.
      given: parameters [n, dim] by group name that are used as they are, without a draw.
    """
    given = given or {}
    parts = [given[g.name] if g.name in given else g.sample(rng, n) for g in groups]
    return np.concatenate(parts, axis=1).astype(np.float32, copy=False)


def apply_groups(
    groups: Sequence[Group], images: jax.Array, transform_params: jax.Array
) -> jax.Array:
    """Apply the image groups, in ascending order of stage; scene groups have no effect.

    Args:
      groups: groups in the order of the parameter vector.
      images: [N, H, W, 3] in [0, 1].
      transform_params: [N, sum of dims], in the groups' own units.
    """
    slices = zip(groups, group_slices(groups), strict=True)
    for group, entries in sorted(slices, key=lambda pair: pair[0].stage):
        if group.render is not None:
            images = group.render(images, transform_params[:, entries])
    return images


def group_slices(groups: Sequence[Group]) -> list[slice]:
    """Return the entries of each group in a vector of all groups' parameters."""
    bounds = np.cumsum([0, *(group.dim for group in groups)])
    return [slice(*bounds[i : i + 2]) for i in range(len(groups))]
