"""What a transformation group is, and the space of all groups' latents."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any  # a NumPy array on the host, a JAX array on the device


@dataclass(frozen=True)
class Group:
    """A transformation group: how its latents are drawn, compared and rendered.

    Attributes:
      name: what environments and reports call it.
      latent: the names of the entries of its latent, in order.
      action: the names of the entries of its action, in order.
      sample: (generator, n) -> float32 [n, dim], latents in the group's own units.
      relative: (t_x [..., dim], t_y [..., dim]) -> action [..., len(action)]; NumPy and JAX alike.
      identity: the latent that leaves an image as it is; None where there is no such latent.
      render: (images [N, H, W, 3] in [0, 1], latents [N, dim]) -> images, on the device; None
        where the data set renders the group itself.
      stage: groups are rendered in rising order of stage, whatever their order in the config.
    """

    name: str
    latent: tuple[str, ...]
    action: tuple[str, ...]
    sample: Callable[[np.random.Generator, int], np.ndarray]
    relative: Callable[[Array, Array], Array]
    identity: tuple[float, ...] | None = None
    render: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    stage: int = 0

    @property
    def dim(self) -> int:
        """Entries of the latent."""
        return len(self.latent)


def difference(t_x: Array, t_y: Array) -> Array:
    """Returns the action of a group whose latents are compared by subtraction, t_y - t_x."""
    return t_y - t_x


@dataclass(frozen=True)
class ParameterSpace:
    """The latents of all groups in a fixed order, standardised by fixed statistics.

    A latent vector holds the told groups first (T entries), then the nuisances: groups that are
    drawn and rendered but never told to the model and never measured.
    """

    groups: tuple[Group, ...]
    unconditioned_transforms: tuple[Group, ...]
    param_mean: np.ndarray  # [T]
    param_std: np.ndarray  # [T]
    action_mean: np.ndarray  # [A]
    action_std: np.ndarray  # [A]

    @classmethod
    def fit(
        cls,
        groups: Sequence[Group],
        unconditioned_transforms: Sequence[Group],
        transform_params: np.ndarray,
    ) -> "ParameterSpace":
        """Builds the space with the statistics of drawn pairs of views, latents [n, 2, >= T]."""
        t_x, t_y = _told(groups, transform_params[:, 0]), _told(groups, transform_params[:, 1])
        both = np.concatenate([t_x, t_y]).astype(np.float64)
        actions = _relative(groups, t_x, t_y, np).astype(np.float64)
        return cls(
            tuple(groups),
            tuple(unconditioned_transforms),
            *(f(axis=0).astype(np.float32) for f in (both.mean, both.std)),
            *(f(axis=0).astype(np.float32) for f in (actions.mean, actions.std)),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The told groups' names, in order."""
        return tuple(group.name for group in self.groups)

    @property
    def param_group_ids(self) -> np.ndarray:
        """Which group owns each latent entry, int [T]."""
        return np.repeat(np.arange(len(self.groups)), [g.dim for g in self.groups])

    @property
    def action_group_ids(self) -> np.ndarray:
        """Which group owns each action entry, int [A]."""
        return np.repeat(np.arange(len(self.groups)), [len(g.action) for g in self.groups])

    @property
    def identity(self) -> np.ndarray | None:
        """The latent vector of an untouched image, float32 [T + nuisances], if there is one."""
        parts = [group.identity for group in (*self.groups, *self.unconditioned_transforms)]
        if any(part is None for part in parts):
            return None
        return np.concatenate([np.asarray(part, np.float32) for part in parts if part is not None])

    def standardize(self, transform_params: Array) -> Array:
        """Standardises latents [..., >= T] in their own units to mean 0, deviation 1, [..., T]."""
        return (transform_params[..., : len(self.param_mean)] - self.param_mean) / self.param_std

    def actions(self, t_x: Array, t_y: Array) -> jax.Array:
        """Returns the standardised action from latents t_x to t_y, [..., >= T] -> [..., A]."""
        raw = _relative(self.groups, _told(self.groups, t_x), _told(self.groups, t_y), jnp)
        return (raw - self.action_mean) / self.action_std


def sample_parameters(groups: Sequence[Group], rng: np.random.Generator, n: int) -> np.ndarray:
    """Draws every group's latents, float32 [n, sum of dims]."""
    return np.concatenate([group.sample(rng, n) for group in groups], axis=1)


def apply_groups(
    groups: Sequence[Group], images: jax.Array, transform_params: jax.Array
) -> jax.Array:
    """Applies the groups to images [N, H, W, 3] in [0, 1] by latents [N, sum of dims], by stage."""
    slices = zip(groups, _slices(groups), strict=True)
    for group, entries in sorted(slices, key=lambda pair: pair[0].stage):
        if group.render is not None:
            images = group.render(images, transform_params[:, entries])
    return images


def _slices(groups: Sequence[Group]) -> list[slice]:
    bounds = np.cumsum([0, *(group.dim for group in groups)])
    return [slice(*bounds[i : i + 2]) for i in range(len(groups))]


def _told(groups: Sequence[Group], transform_params: Array) -> Array:
    return transform_params[..., : sum(group.dim for group in groups)]


def _relative(groups: Sequence[Group], t_x: Array, t_y: Array, numpy: Any) -> Array:
    actions = [
        group.relative(t_x[..., entries], t_y[..., entries])
        for group, entries in zip(groups, _slices(groups), strict=True)
    ]
    return numpy.concatenate(actions, axis=-1)
