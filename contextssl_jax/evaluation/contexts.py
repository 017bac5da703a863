"""The contexts that an evaluation reads, and the conditions that they make: who sees what."""

from collections.abc import Mapping, Sequence
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
      environments: shown groups, bool [G], by name.
      lengths: tokens of context, rising.
    """

    environments: Mapping[str, np.ndarray]
    lengths: tuple[int, ...]

    @property
    def nonzero_lengths(self) -> tuple[int, ...]:
        """The lengths above 0."""
        return tuple(length for length in self.lengths if length)

    @property
    def size(self) -> int:
        """U, the number of different conditions."""
        return (0 in self.lengths) + len(self.environments) * len(self.nonzero_lengths)

    def row(self, environment: str, length: int) -> int:
        """Returns the condition's place among the U."""
        if not length:
            return 0
        place = list(self.environments).index(environment) * len(self.nonzero_lengths)
        return (0 in self.lengths) + place + self.nonzero_lengths.index(length)

    def by_length(self, environment: str, values: np.ndarray) -> dict[str, float]:
        """Names one environment's values of all U conditions [U] by length, for reports."""
        return {str(c): float(values[self.row(environment, c)]) for c in self.lengths}


class EncodedContexts:
    """One drawn context of K pairs, read once in every environment, shared by all queries."""

    def __init__(
        self,
        reader: ForwardPasses,
        variables: Variables,
        space: ParameterSpace,
        conditions: Conditions,
        views: Views,
        key: jax.Array | None,
    ) -> None:
        """Encodes the context's pairs, [K, 2] views, and reads them.

        Args:
          reader: of the method.
          variables: placed by the reader.
          space: of the latents.
          conditions: environments to read in, and lengths that will be asked for.
          views: at least as many pairs as the longest length needs.
          key: draws what is hidden, where the context is to be read as sparsely as in training.
        """
        self._reader, self._variables, self._conditions = reader, variables, conditions
        self._space = space
        self._contexts: dict[str, Any] = dict.fromkeys(conditions.environments)
        if conditions.nonzero_lengths:
            features = reader.encode(variables, views)
            actions = np.asarray(
                space.actions(views.transform_params[:, 0], views.transform_params[:, 1])
            )
            for name in conditions.environments:
                shown = self._shown(name, actions)
                self._contexts[name] = reader.encode_context(variables, features, shown, key)

    def plain(self, features: np.ndarray) -> np.ndarray:
        """Embeds z⁺ = (view, no action): features [..., F] -> [U, ..., P]."""
        flat = features.reshape(-1, features.shape[-1])
        some = next(iter(self._contexts))
        parts = [self._embed(some, (0,), flat, None)] if 0 in self._conditions.lengths else []
        for name in self._contexts if self._conditions.nonzero_lengths else ():
            parts.append(self._embed(name, self._conditions.nonzero_lengths, flat, None))
        h = np.concatenate(parts)
        return h.reshape(len(h), *features.shape[:-1], -1)

    def asked(self, features: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Embeds z_r = (x, the action's shown groups): [..., F], [..., A] -> [E, C, ..., P]."""
        flat = features.reshape(-1, features.shape[-1])
        told = actions.reshape(len(flat), -1)
        h = np.stack(
            [
                self._embed(name, self._conditions.lengths, flat, self._shown(name, told))
                for name in self._contexts
            ]
        )
        return h.reshape(*h.shape[:2], *features.shape[:-1], -1)

    def _embed(
        self, name: str, lengths: Sequence[int], features: np.ndarray, actions: np.ndarray | None
    ) -> np.ndarray:
        context = self._contexts[name]
        return self._reader.embed(self._variables, context, lengths, features, actions)

    def _shown(self, name: str, actions: np.ndarray) -> np.ndarray:
        shown = self._conditions.environments[name]
        return np.asarray(mask_actions(actions, shown, self._space.action_group_ids))
