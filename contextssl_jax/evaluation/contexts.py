"""Conditions of an evaluation (environment and context length), and embeddings under them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from contextssl_jax.evaluation.reader import ForwardPasses
from contextssl_jax.evaluation.views import Views
from contextssl_jax.methods.base import Variables, mask_actions
from contextssl_jax.transforms import ParameterSpace


@dataclass(frozen=True)
class Conditions:
    """Every (environment, length) under which views are embedded with no action.

    Without a context all environments are the same, so that length 0 is one condition, not E.

    Attributes:
      environments: observed groups, bool [G], by name.
      lengths: tokens of context, rising.
    """

    environments: Mapping[str, np.ndarray]
    lengths: tuple[int, ...]

    @property
    def nonzero_lengths(self) -> tuple[int, ...]:
        """Return the lengths above 0."""
        return tuple(length for length in self.lengths if length)

    @property
    def size(self) -> int:
        """Return U, the number of different conditions."""
        return (0 in self.lengths) + len(self.environments) * len(self.nonzero_lengths)

    def row(self, environment: str, length: int) -> int:
        """Return the condition's index among the U."""
        if not length:
            return 0
        first = list(self.environments).index(environment) * len(self.nonzero_lengths)
        return (0 in self.lengths) + first + self.nonzero_lengths.index(length)

    def by_length(self, environment: str, values: np.ndarray) -> dict[str, float]:
        """Return one environment's part of the values of all U conditions [U], by length."""
        return {str(c): float(values[self.row(environment, c)]) for c in self.lengths}

    def name_lengths(self, values: np.ndarray) -> dict[str, float]:
        """Return one environment's values [C] by length."""
        return dict(zip(map(str, self.lengths), values.tolist(), strict=True))


def other_environments(environments: Iterable[str], group: str) -> list[str]:
    """Return the environments that a group's own one is compared with.

    These are the environments of exactly one other group; without any, that of no group ("none").
    """
    names = list(environments)
    single = [name for name in names if "+" not in name and name not in ("none", group)]
    return single or [name for name in names if name == "none"]


class EncodedContexts:
    """One drawn context of K pairs, encoded once in every environment, shared by all queries."""

    def __init__(
        self,
        reader: ForwardPasses,
        variables: Variables,
        space: ParameterSpace,
        conditions: Conditions,
        views: Views,
        key: jax.Array | None,
    ) -> None:
        """Encode the context's pairs, [K, 2] views, in every environment.

        Args:
          reader: the method's forward passes.
          variables: placed by the reader.
          space: the method's.
          conditions: environments and lengths.
          views: at least as many pairs as the longest length needs.
          key: draws attention masks as in training; None attends to the whole context.
        """
        self._reader, self._variables, self._conditions = reader, variables, conditions
        self._space = space
        self._contexts: dict[str, Any] = dict.fromkeys(conditions.environments)
        if conditions.nonzero_lengths:
            features = reader.encode(variables, views)
            actions = space.actions(views.transform_params[:, 0], views.transform_params[:, 1])
            for name in conditions.environments:
                observed = self._mask(name, actions)
                self._contexts[name] = reader.encode_context(variables, features, observed, key)

    def view_embeddings(self, features: np.ndarray) -> np.ndarray:
        """Return z⁺ of (view, no action): features [..., F] -> [U, ..., P]."""
        flat = features.reshape(-1, features.shape[-1])
        first = next(iter(self._contexts))
        parts = [self._embed(first, (0,), flat, None)] if 0 in self._conditions.lengths else []
        for name in self._contexts if self._conditions.nonzero_lengths else ():
            parts.append(self._embed(name, self._conditions.nonzero_lengths, flat, None))
        h = np.concatenate(parts)
        return h.reshape(len(h), *features.shape[:-1], -1)

    def predicted_targets(self, features: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return z_r of (x, observed part of its action): [..., F], [..., A] -> [E, C, ..., P]."""
        flat = features.reshape(-1, features.shape[-1])
        flat_actions = actions.reshape(len(flat), -1)
        h = np.stack(
            [
                self._embed(name, self._conditions.lengths, flat, self._mask(name, flat_actions))
                for name in self._contexts
            ]
        )
        return h.reshape(*h.shape[:2], *features.shape[:-1], -1)

    def _embed(
        self, name: str, lengths: Sequence[int], features: np.ndarray, actions: np.ndarray | None
    ) -> np.ndarray:
        context = self._contexts[name]
        return self._reader.embed(self._variables, context, lengths, features, actions)

    def _mask(self, name: str, actions: np.ndarray) -> np.ndarray:
        observed = self._conditions.environments[name]
        return np.asarray(mask_actions(actions, observed, self._space.action_group_ids))
