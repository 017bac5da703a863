"""The space of all groups' parameters: their order, statistics and actions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contextssl_jax.transforms.base import Array, Group, group_slices, sample_parameters

_STATISTICS_SEED, _STATISTICS_DRAWS = 0, 1 << 16


@dataclass(frozen=True)
class ParameterSpace:
    """The parameters of all groups in a fixed order, standardized by fixed statistics.

    Statistics of mean 0 and standard deviation 1 leave parameters or actions in their own units;
    see `with_units`.

    A parameter vector holds the conditioned groups first (T entries), then the unconditioned
    transforms: groups that are sampled and rendered, but are no condition, target or measure.
    """

    groups: tuple[Group, ...]
    unconditioned_transforms: tuple[Group, ...]
    param_mean: np.ndarray  # [T]
    param_std: np.ndarray  # [T]
    action_mean: np.ndarray  # [A]
    action_std: np.ndarray  # [A]

    @classmethod
    def fit(
        cls, groups: Sequence[Group], unconditioned_transforms: Sequence[Group]
    ) -> "ParameterSpace":
        """Build the space with the statistics of sampled pairs of views."""
        # Enough pairs that the statistics are the sampler's to a fraction of a percent; a fixed
        # seed, so that they are the same in every run.
        rng = np.random.default_rng(_STATISTICS_SEED)
        sampled = sample_parameters(
            (*groups, *unconditioned_transforms), rng, 2 * _STATISTICS_DRAWS
        )
        pairs = sampled.reshape(_STATISTICS_DRAWS, 2, -1)
        t_x, t_y = _conditioned(groups, pairs[:, 0]), _conditioned(groups, pairs[:, 1])
        both = np.concatenate([t_x, t_y]).astype(np.float64)
        actions = _relative(groups, t_x, t_y, np).astype(np.float64)
        return cls(
            tuple(groups),
            tuple(unconditioned_transforms),
            *(f(axis=0).astype(np.float32) for f in (both.mean, both.std)),
            *(f(axis=0).astype(np.float32) for f in (actions.mean, actions.std)),
        )

    def with_units(
        self, *, standardize_params: bool, standardize_actions: bool
    ) -> "ParameterSpace":
        """Return this space, or one whose parameters or actions are in the groups' own units."""
        space = self
        if not standardize_params:
            mean, std = np.zeros_like(self.param_mean), np.ones_like(self.param_std)
            space = replace(space, param_mean=mean, param_std=std)
        if not standardize_actions:
            mean, std = np.zeros_like(self.action_mean), np.ones_like(self.action_std)
            space = replace(space, action_mean=mean, action_std=std)
        return space

    @property
    def all_groups(self) -> tuple[Group, ...]:
        """Return the groups of a parameter vector, in order."""
        return (*self.groups, *self.unconditioned_transforms)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the conditioned groups' names, in order."""
        return tuple(group.name for group in self.groups)

    @property
    def param_group_ids(self) -> np.ndarray:
        """Return the index of the group that each parameter belongs to, int [T]."""
        return np.repeat(np.arange(len(self.groups)), [g.dim for g in self.groups])

    @property
    def action_group_ids(self) -> np.ndarray:
        """Return the index of the group that each action entry belongs to, int [A]."""
        return np.repeat(np.arange(len(self.groups)), [len(g.action_names) for g in self.groups])

    @property
    def identity(self) -> np.ndarray | None:
        """Return the parameters of an unchanged image, float32 [D]; None if a group has none."""
        parts = [group.identity for group in self.all_groups]
        if any(part is None for part in parts):
            return None
        return np.concatenate([np.asarray(part, np.float32) for part in parts if part is not None])

    def from_scenes(self, rng: np.random.Generator, scenes: np.ndarray) -> np.ndarray:
        """Return the parameters of stored scenes [..., 7], float32 [..., D].

        Image groups, which a scene does not determine, are sampled.
        """
        flat = scenes.reshape(-1, scenes.shape[-1])
        given = {g.name: g.from_scene(flat) for g in self.all_groups if g.from_scene}
        transform_params = sample_parameters(self.all_groups, rng, len(flat), given)
        return transform_params.reshape(*scenes.shape[:-1], transform_params.shape[-1])

    def resample_image_groups(
        self, rng: np.random.Generator, transform_params: np.ndarray
    ) -> np.ndarray:
        """Return parameters [..., D] with those of image groups sampled anew."""
        flat = transform_params.reshape(-1, transform_params.shape[-1])
        slices = zip(self.all_groups, group_slices(self.all_groups), strict=True)
        given = {group.name: flat[:, entries] for group, entries in slices if not group.render}
        return sample_parameters(self.all_groups, rng, len(flat), given).reshape(
            transform_params.shape
        )

    def deviations(self, units: "ParameterSpace") -> np.ndarray:
        """Return the parameters' standard deviations in the units of another space, [T]."""
        return self.param_std / units.param_std

    def standardize(self, transform_params: Array) -> Array:
        """Standardize parameters [..., >= T] by the statistics, [..., T]."""
        return (transform_params[..., : len(self.param_mean)] - self.param_mean) / self.param_std

    def actions(self, t_x: Array, t_y: Array) -> Array:
        """Return the standardized action from parameters t_x to t_y, [..., >= T] -> [..., A].

        Computed by NumPy for NumPy arrays, and by JAX for JAX arrays.
        """
        numpy = jnp if isinstance(t_x, jax.Array) or isinstance(t_y, jax.Array) else np
        raw = _relative(
            self.groups, _conditioned(self.groups, t_x), _conditioned(self.groups, t_y), numpy
        )
        return (raw - self.action_mean) / self.action_std


def _conditioned(groups: Sequence[Group], transform_params: Array) -> Array:
    return transform_params[..., : sum(group.dim for group in groups)]


def _relative(groups: Sequence[Group], t_x: Array, t_y: Array, numpy: Any) -> Array:
    actions = [
        group.relative(t_x[..., entries], t_y[..., entries])
        for group, entries in zip(groups, group_slices(groups), strict=True)
    ]
    return numpy.concatenate(actions, axis=-1, dtype=np.float32)
