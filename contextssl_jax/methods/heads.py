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
    def uses_context(self) -> bool:
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

    def encode_context(
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
    """A projector; it reads no contexts, and actions only where its module predicts by them.

    Attributes:
      module: which of both it is.
      part: which of how many equal parts of the features it is given.
    """

    module: Projector | ActionProjector
    part: tuple[int, int] = (0, 1)
    uses_context: bool = False

    @property
    def outputs(self) -> int:
        """See Head."""
        return self.module.widths[-1]

    def init(self, key: jax.Array, features: jax.Array, actions: jax.Array) -> Variables:
        """See Head."""
        features = self._given(features)
        if isinstance(self.module, ActionProjector):
            return dict(self.module.init(key, features, actions, method="both"))
        return dict(self.module.init(key, features))

    def project(
        self,
        variables: Variables,
        features: jax.Array,
        actions: jax.Array,
        position: jax.Array,
        key: jax.Array,
    ) -> tuple[Projected, Any]:
        """See Head; E is 1 where no action is read. All views are in one set of statistics."""
        del position, key
        features = self._given(features)
        h, updated = self.module.apply(variables, features, train=True, mutable=["batch_stats"])
        x, y = h[:, None, :, 0], h[:, None, :, 1]
        asked = self._act(variables, x, actions)
        return Projected(asked, y, x), updated.get("batch_stats", {})

    def encode_context(
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
        h: Any = self.module.apply(variables, self._given(features))
        return h if actions is None else self._act(variables, h, actions)

    def _given(self, features: jax.Array) -> jax.Array:
        which, parts = self.part
        if features.shape[-1] % parts:
            raise UserError(
                f"method: it splits features into {parts} equal parts, which the encoder's"
                f" {features.shape[-1]} do not"
            )
        return jnp.split(features, parts, axis=-1)[which]

    def _act(self, variables: Variables, projected: jax.Array, actions: jax.Array) -> jax.Array:
        if not isinstance(self.module, ActionProjector):
            return projected
        asked: Any = self.module.apply(variables, projected, actions, method="act")
        return asked


def build_projector(
    model: ConfigDict, axis: str | None, part: tuple[int, int] = (0, 1)
) -> ProjectorHead:
    """Builds a head that reads no actions from `model.projector`, for a part of the features."""
    module = Projector(tuple(model.projector.widths), axis, jnp.dtype(model.dtype))
    return ProjectorHead(module, part)


def build_action_projector(
    model: ConfigDict, axis: str | None, part: tuple[int, int] = (0, 1)
) -> ProjectorHead:
    """Builds a head that reads actions from `model.projector`, for a part of the features.

    Raises:
      UserError: the predictor is none that there is.
    """
    options = model.projector
    if options.predictor not in ACTION_PREDICTORS:
        raise UserError(
            f"model.projector.predictor: {options.predictor!r} is none of {ACTION_PREDICTORS}"
        )
    dtype = jnp.dtype(model.dtype)
    module = ActionProjector(tuple(options.widths), options.predictor, axis, dtype)
    return ProjectorHead(module, part)
