"""From features to embeddings: what a method puts on its encoder, with or without context.

A head embeds x with its action, and y alone. The context transformer is a head too; see
context_head.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from contextssl_jax.errors import UserError
from contextssl_jax.methods.base import Variables
from contextssl_jax.models.projector import ACTION_PREDICTORS, ActionProjector, Projector


class Projected(NamedTuple):
    """A batch's embeddings, not normalised, float32."""

    asked: jax.Array  # x with its action, [B, E, K, P]; without, where the head reads no actions
    target: jax.Array  # y alone, [B, E or 1, K, P]
    source: jax.Array  # x alone, [B, 1, K, P]; as asked, of a head that tells them not apart

    @property
    def tokens(self) -> jax.Array:
        """x1 with its action, y1, x2, y2, ..., [B, E, 2K, P]."""
        b, e, k, p = self.asked.shape
        both = jnp.stack(jnp.broadcast_arrays(self.asked, self.target), axis=3)
        return both.reshape(b, e, 2 * k, p)


class Head(Protocol):
    """Pure functions of one Flax module's variables; letters as in Method."""

    @property
    def module(self) -> nn.Module:
        """Whose variables these are."""

    @property
    def outputs(self) -> int:
        """P, entries of an embedding."""

    @property
    def reads(self) -> bool:
        """Whether embeddings depend on a context."""

    def init(self, key: jax.Array, features: jax.Array, actions: jax.Array) -> Variables:
        """Draws the variables; [1, F] and [1, A] give the shapes."""

    def project(
        self,
        variables: Variables,
        features: jax.Array,
        actions: jax.Array,
        position: jax.Array,
        key: jax.Array,
    ) -> tuple[Projected, Any]:
        """Embeds a batch for training.

        Args:
          variables: of the head.
          features: [B, K, 2, F].
          actions: standardised, those of hidden groups 0, [B, E, K, A].
          position: places of the contexts in the global batch, int [B].
          key: of the step.

        Returns:
          The embeddings, and the new batch statistics.
        """

    def read(
        self,
        variables: Variables,
        features: jax.Array,
        actions: jax.Array,
        key: jax.Array | None,
    ) -> Any:
        """See Method.read."""

    def embed(
        self,
        variables: Variables,
        context: Any,
        length: jax.Array | int,
        features: jax.Array,
        actions: jax.Array | None,
    ) -> jax.Array:
        """See Method.embed; not normalised."""


@dataclass(frozen=True)
class ProjectorHead:
    """A projector, which reads neither actions nor contexts."""

    module: Projector
    reads: bool = False

    @property
    def outputs(self) -> int:
        """See Head."""
        return self.module.widths[-1]

    def init(self, key: jax.Array, features: jax.Array, actions: jax.Array) -> Variables:
        """See Head."""
        del actions
        return dict(self.module.init(key, features))

    def project(
        self,
        variables: Variables,
        features: jax.Array,
        actions: jax.Array,
        position: jax.Array,
        key: jax.Array,
    ) -> tuple[Projected, Any]:
        """See Head; E is 1."""
        del actions, position, key
        h, batch_stats = project_views(self.module, variables, features)
        x, y = h[:, None, :, 0], h[:, None, :, 1]
        return Projected(x, y, x), batch_stats

    def read(
        self,
        variables: Variables,
        features: jax.Array,
        actions: jax.Array,
        key: jax.Array | None,
    ) -> None:
        """Reads nothing."""

    def embed(
        self,
        variables: Variables,
        context: None,
        length: jax.Array | int,
        features: jax.Array,
        actions: jax.Array | None,
    ) -> jax.Array:
        """See Head."""
        del context, length, actions
        h: Any = self.module.apply(variables, features)
        return h


@dataclass(frozen=True)
class ActionHead:
    """A projector, and a predictor of where an action takes x; it reads no contexts."""

    module: ActionProjector
    reads: bool = False

    @property
    def outputs(self) -> int:
        """See Head."""
        return self.module.widths[-1]

    def init(self, key: jax.Array, features: jax.Array, actions: jax.Array) -> Variables:
        """See Head."""
        return dict(self.module.init(key, features, actions, method="both"))

    def project(
        self,
        variables: Variables,
        features: jax.Array,
        actions: jax.Array,
        position: jax.Array,
        key: jax.Array,
    ) -> tuple[Projected, Any]:
        """See Head."""
        del position, key
        h, batch_stats = project_views(self.module, variables, features)
        x, y = h[:, None, :, 0], h[:, None, :, 1]
        asked: Any = self.module.apply(variables, x, actions, method="act")
        return Projected(asked, y, x), batch_stats

    def read(
        self,
        variables: Variables,
        features: jax.Array,
        actions: jax.Array,
        key: jax.Array | None,
    ) -> None:
        """Reads nothing."""

    def embed(
        self,
        variables: Variables,
        context: None,
        length: jax.Array | int,
        features: jax.Array,
        actions: jax.Array | None,
    ) -> jax.Array:
        """See Head: the projection of a view alone, or where the action takes it."""
        del context, length
        h: Any = self.module.apply(variables, features)
        if actions is None:
            return h
        asked: Any = self.module.apply(variables, h, actions, method="act")
        return asked


def project_views(
    module: nn.Module, variables: Variables, features: jax.Array
) -> tuple[jax.Array, Any]:
    """Projects all views [B, K, 2, F] in one set of statistics; [B, K, 2, P] and new statistics."""
    h, updated = module.apply(variables, features, train=True, mutable=["batch_stats"])
    return h, updated.get("batch_stats", {})


def build_projector(model: ConfigDict, axis: str | None) -> ProjectorHead:
    """Builds the head from `model.projector`."""
    dtype = jnp.dtype(model.dtype)
    return ProjectorHead(Projector(tuple(model.projector.widths), axis, dtype))


def build_action_projector(model: ConfigDict, axis: str | None) -> ActionHead:
    """Builds the head from `model.projector`.

    Raises:
      UserError: the predictor is none that there is.
    """
    options = model.projector
    if options.predictor not in ACTION_PREDICTORS:
        raise UserError(
            f"model.projector.predictor: {options.predictor!r} is none of {ACTION_PREDICTORS}"
        )
    dtype = jnp.dtype(model.dtype)
    return ActionHead(ActionProjector(tuple(options.widths), options.predictor, axis, dtype))
