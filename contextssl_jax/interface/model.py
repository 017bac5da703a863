"""A trained model as a user holds it; NumPy arrays in and out.

Letters of shapes: N images, K pairs of a context, F features, P embedding entries, T parameters.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from contextssl_jax.interface.batches import Batches
from contextssl_jax.interface.card import Card
from contextssl_jax.interface.checks import (
    check_features,
    check_images,
    split_groups,
    standardized_actions,
)
from contextssl_jax.methods.base import Method, Variables
from contextssl_jax.methods.rounding import MAX_ROUNDING, round_to_grid
from contextssl_jax.models.precision import with_precision
from contextssl_jax.transforms import ParameterSpace


@dataclass(frozen=True)
class Context:
    """Examples of a transformation, encoded once for any number of queries.

    Attributes:
      pairs: K.
      groups: the observed groups; embeddings are invariant to the others.
    """

    pairs: int
    groups: tuple[str, ...]
    _encoded: Any
    _model: object

    @property
    def tokens(self) -> int:
        """Return the length in tokens, 2 K."""
        return 2 * self.pairs

    def __repr__(self) -> str:
        return f"Context({self.pairs} pairs, observes {' and '.join(self.groups) or 'no group'})"


class Neighbors(NamedTuple):
    """The nearest rows of a bank, nearest first."""

    indices: np.ndarray  # int [N, k]
    cosines: np.ndarray  # float32 [N, k]


class _Passes(NamedTuple):
    """The jitted functions of a method."""

    encode: Callable[..., jax.Array]
    encode_context: Callable[..., Any]
    embed: Callable[..., jax.Array]
    embed_images: Callable[..., jax.Array]
    predict: Callable[..., Any]
    nearest: Callable[..., Any]


class Model:
    """One encoder and one head, which a context adapts; immutable.

    Attributes:
      card: what the model is, the units of its groups, and its figures.
      config: the options of its training.
      method: its pure functions.
      space: of the data set, with the statistics of transform parameters in training.
      variables: of the method, on the local devices.
    """

    def __init__(
        self,
        card: Card,
        config: Mapping[str, Any],
        method: Method,
        space: ParameterSpace,
        variables: Variables,
        batch: int,
    ) -> None:
        """Place the variables on the local devices; `load` calls this.

        Args:
          card: see the class.
          config: see the class.
          method: with the arithmetic of evaluation; its `render` takes images.
          space: see the class.
          variables: of the method.
          batch: images of the largest batch.
        """
        self.card, self.config = card, config
        self.method, self.space = method, space
        self._batches = Batches(batch)
        self.variables = self._batches.replicate(variables)
        self._passes = _compile(method)

    def __repr__(self) -> str:
        return f"Model({self.card.name!r}, groups {', '.join(self.space.names)})"

    def encode(self, images: Any) -> np.ndarray:
        """Return the encoder's features, float32 [N, F].

        Args:
          images: uint8, or float in [0, 1], [N, H, W, 3].

        Raises:
          ValueError: the images have a wrong shape, type or range.
        """
        checked = check_images(images, self.card.image_size)
        return self._map(self._passes.encode, checked)

    def context(self, x: Any, y: Any, **actions: Any) -> Context:
        """Encode a context of K pairs of images.

        Args:
          x: images or their features; see `embed`.
          y: the transformed images, likewise.
          **actions: what is observed of the transformation from x to y: by group, in the units of
            `card`, [K, entries]. Groups that are left out are not observed.

        Raises:
          ValueError: an argument is wrong, K is above `card.max_pairs`, or the method has no
            contexts.
        """
        if not self.method.uses_context:
            raise ValueError(f"context: a model of the method {self.card.method} uses no contexts.")
        both = [self._features(images, name) for images, name in ((x, "x"), (y, "y"))]
        (pairs, entries), limit = both[0].shape, self.card.max_pairs
        if len(both[1]) != pairs:
            raise ValueError(f"y: {len(both[1])} images, but x has {pairs}.")
        if pairs > limit:
            raise ValueError(
                f"x, y: {pairs} pairs, but the model was trained on contexts of at most {limit}."
                " Pass fewer."
            )
        observed = standardized_actions(self.method.space, self.space, actions, pairs)
        # Of one shape for every K, so that they are compiled once; `embed` hides what is added.
        features = np.zeros((limit, 2, entries), np.float32)
        features[:pairs] = np.stack(both, axis=1)
        padded = np.zeros((limit, len(self.method.space.action_mean)), np.float32)
        if observed is not None:
            padded[:pairs] = observed
        encoded = self._passes.encode_context(
            self.variables, *self._batches.replicate((features, padded))
        )
        groups = tuple(name for name in self.space.names if actions.get(name) is not None)
        return Context(pairs, groups, encoded, self)

    def embed(
        self,
        images: Any,
        context: Context | None = None,
        *,
        length: int | None = None,
        rounding: float = 0.0,
        **actions: Any,
    ) -> np.ndarray:
        """Return embeddings of length 1, float32 [N, P].

        Args:
          images: uint8, or float in [0, 1], [N, H, W, 3]; or features of `encode`, [N, F].
          context: from `context`; without one, the general representation.
          length: tokens of the context to use, 0 to 2 K; all by default.
          rounding: round entries to multiples of this, in units of 1 / sqrt(P), which erases what
            the context has left in directions of small variance, such as 1; 0 does not round.
          **actions: by group, in the units of `card`, [N, entries], or [entries] for all images.
            The embeddings are then the predicted ones of the transformed images.

        Raises:
          ValueError: an argument is wrong, or the context is of another model.
        """
        if context is not None and context._model is not self:
            raise ValueError("context: encoded by another model. Encode it by this one.")
        tokens = 0 if context is None else context.tokens
        if length is not None and not 0 <= length <= tokens:
            raise ValueError(f"length: {length} tokens, but the context has {tokens}.")
        if not 0 <= rounding <= MAX_ROUNDING:
            raise ValueError(f"rounding: {rounding}, expected 0 to {MAX_ROUNDING}.")
        queries, from_images = self._queries(images, "images")
        observed = standardized_actions(self.method.space, self.space, actions, len(queries))
        visible = np.int32(tokens if length is None else length)
        embed = self._passes.embed_images if from_images else self._passes.embed

        def run(queries: jax.Array, actions: jax.Array | None) -> jax.Array:
            encoded = None if context is None else context._encoded
            h = embed(self.variables, encoded, visible, queries, actions)
            return round_to_grid(h, rounding) if rounding else h

        embeddings: np.ndarray = self._batches.map(run, queries, observed)
        return embeddings

    def predict(self, embeddings: Any) -> dict[str, np.ndarray]:
        """Return the transform parameters of each group, in the units of `card`, [N, entries].

        A model that is trained to predict classes also returns their logits, as "classes".

        Args:
          embeddings: [N, P].

        Raises:
          ValueError: the shape is wrong, or the method predicts nothing.
        """
        checked = check_features(embeddings, self.card.embedding, "embeddings")
        found = self._map(self._passes.predict, checked)
        result: dict[str, np.ndarray] = {}
        if found.transform_params is not None:
            space = self.method.space
            values = found.transform_params * space.param_std + space.param_mean
            result |= split_groups(space.groups, values)
        if found.classes is not None:
            result["classes"] = found.classes
        if not result:
            raise ValueError(f"predict: the method {self.card.method} predicts nothing.")
        return result

    def nearest(self, embeddings: Any, bank: Any, k: int = 1) -> Neighbors:
        """Return the k rows of a bank with the largest cosines.

        Args:
          embeddings: [N, P].
          bank: [M, P].
          k: 1 to M.

        Raises:
          ValueError: a shape or k is wrong.
        """
        queries = check_features(embeddings, self.card.embedding, "embeddings")
        rows = check_features(bank, self.card.embedding, "bank")
        if not 1 <= k <= len(rows):
            raise ValueError(f"k: {k}, expected 1 to {len(rows)}, the rows of the bank.")
        placed = self._batches.replicate(rows)
        cosines, indices = self._batches.map(partial(self._passes.nearest, k, placed), queries)
        return Neighbors(indices, cosines)

    def _map(self, function: Callable[..., Any], rows: np.ndarray) -> Any:
        return self._batches.map(partial(function, self.variables), rows)

    def _queries(self, images: Any, argument: str) -> tuple[np.ndarray, bool]:
        """Return checked images or features, and True for images."""
        array = np.asarray(images)
        if array.ndim == 2:
            return check_features(array, self.card.features, argument), False
        return check_images(array, self.card.image_size, argument), True

    def _features(self, images: Any, argument: str) -> np.ndarray:
        """Return the features [N, F] of images, or the features themselves."""
        queries, from_images = self._queries(images, argument)
        return self._map(self._passes.encode, queries) if from_images else queries


def _compile(method: Method) -> _Passes:
    def encode(variables: Variables, images: jax.Array) -> jax.Array:
        return method.encode(variables, images, jnp.zeros((len(images), 0)))

    def embed_images(
        variables: Variables, context: Any, length: Any, images: jax.Array, actions: Any
    ) -> jax.Array:
        return method.embed(variables, context, length, encode(variables, images), actions)

    def nearest(k: int, bank: jax.Array, queries: jax.Array) -> tuple[jax.Array, jax.Array]:
        unit = [x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (queries, bank)]
        cosines, indices = jax.lax.top_k(unit[0] @ unit[1].T, k)
        return cosines, indices

    def jit(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        return with_precision(jax.jit(function, **options), "highest")

    return _Passes(
        jit(encode),
        jit(method.encode_context),
        jit(method.embed),
        jit(embed_images),
        jit(method.predict),
        jit(nearest, static_argnums=0),
    )
