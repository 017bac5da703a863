"""Validation of a user's arrays. Every error is a ValueError of one line."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from contextssl_jax.transforms import Group, ParameterSpace
from contextssl_jax.transforms.base import group_slices

_UNUSUAL = 10  # standard deviations of an action, beyond which its unit must be wrong


def check_images(images: Any, side: int, argument: str = "images") -> np.ndarray:
    """Return images as uint8 or float32 in [0, 1], [N, side, side, 3].

    Args:
      images: anything that np.asarray takes.
      side: image size of the model in pixels.
      argument: its name, for error messages.

    Raises:
      ValueError: the shape, type or range is wrong.
    """
    array = np.asarray(images)
    expected = f"expected [N, {side}, {side}, 3]"
    if array.ndim == 3:
        raise ValueError(f"{argument}: shape {array.shape}, {expected}. Pass images[None] for one.")
    if array.ndim != 4 or array.shape[-1] != 3:
        raise ValueError(f"{argument}: shape {array.shape}, {expected}: RGB, channels last.")
    if not len(array):
        raise ValueError(f"{argument}: no images, {expected}.")
    if array.shape[1:3] != (side, side):
        raise ValueError(
            f"{argument}: {array.shape[1]} by {array.shape[2]} pixels, {expected}. Resize them."
        )
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{argument}: type {array.dtype}. Use uint8, or float in [0, 1].")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):  # NaN too
        raise ValueError(
            f"{argument}: values from {low:g} to {high:g}, expected floats in [0, 1]. Divide levels"
            " of 0 to 255 by 255, or pass uint8."
        )
    return array.astype(np.float32)


def check_features(features: Any, entries: int, argument: str) -> np.ndarray:
    """Return vectors as float32 [N, entries].

    Raises:
      ValueError: the shape is wrong, or a value is not finite.
    """
    array = np.asarray(features, np.float32)
    if array.ndim != 2 or array.shape[1] != entries or not len(array):
        raise ValueError(f"{argument}: shape {array.shape}, expected [N, {entries}].")
    if not np.isfinite(array).all():
        raise ValueError(f"{argument}: a value is not finite.")
    return array


def standardized_actions(
    space: ParameterSpace, fitted: ParameterSpace, actions: Mapping[str, Any], n: int
) -> np.ndarray | None:
    """Return the action vectors of n pairs, 0 for groups that are not observed.

    Args:
      space: the method's, which may leave actions in their own units.
      fitted: the data set's, with the statistics of actions in training.
      actions: of observed groups by name, in their own units: [n, entries], or [entries] for the
        same in all pairs; groups of one entry also take [n]. None is not observed.
      n: number of pairs.

    Returns:
      float32 [n, A]; None if no group is observed.

    Raises:
      ValueError: a group is unknown, or its action has a wrong shape, unit or range.
    """
    observed = {name: value for name, value in actions.items() if value is not None}
    if unknown := [name for name in observed if name not in space.names]:
        raise ValueError(
            f"{unknown[0]}: no group of this model. Its groups are {', '.join(space.names)}."
        )
    if not observed:
        return None
    standardized = np.zeros((n, len(space.action_mean)), np.float32)
    for g, group in enumerate(space.groups):
        if group.name in observed:
            own = space.action_group_ids == g
            action = _check_action(group, observed[group.name], n)
            distance = np.abs(action - fitted.action_mean[own]) / fitted.action_std[own]
            if distance.max() > _UNUSUAL:
                raise ValueError(
                    f"{group.name}: {float(action.flat[distance.argmax()]):g} is"
                    f" {distance.max():.0f} standard deviations from what the model was trained"
                    f" on. Its entries are {', '.join(group.action_names)}: {group.action_units}."
                )
            standardized[:, own] = (action - space.action_mean[own]) / space.action_std[own]
    return standardized


def split_groups(groups: tuple[Group, ...], vectors: np.ndarray) -> dict[str, np.ndarray]:
    """Return the entries of each group in parameter vectors [..., T], by name."""
    slices = zip(groups, group_slices(groups), strict=True)
    return {group.name: vectors[..., entries] for group, entries in slices}


def _check_action(group: Group, value: Any, n: int) -> np.ndarray:
    """Return a group's action, float32 [n, entries]; see standardized_actions."""
    array, entries = np.asarray(value, np.float32), len(group.action_names)
    if entries == 1 and array.shape in ((), (n,)):
        array = np.broadcast_to(array, (n,))[:, None]
    elif array.shape == (entries,):
        array = np.broadcast_to(array, (n, entries))
    if array.shape != (n, entries):
        raise ValueError(
            f"{group.name}: shape {array.shape}, expected [{n}, {entries}] with the entries"
            f" {', '.join(group.action_names)}."
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{group.name}: a value is not finite.")
    return group.check_action(array)
