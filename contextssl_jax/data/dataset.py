"""What a data set is: records to draw views of on the host, and how the device renders them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np

from contextssl_jax.transforms import ParameterSpace

Record = Any  # a pytree of arrays; what `render` reads beside the latents


class Split(Protocol):
    """A random-access collection of records."""

    @property
    def size(self) -> int:
        """Number of records."""

    @property
    def labels(self) -> np.ndarray | None:
        """Classes of the records, int32 [size], where the data set has any."""

    def draw(
        self, rng: np.random.Generator, indices: np.ndarray, views: int
    ) -> tuple[Record, np.ndarray]:
        """Draws views of the records at indices [n].

        Returns:
          record: leaves [n, v, ...]; v = 1 where all views share the leaf, else v = views.
          latents: in the groups' own units, told groups first, float32 [n, views, T + nuisances].
        """


@dataclass(frozen=True)
class Dataset:
    """A source of records, the space of their latents, and the device function that renders views.

    `render` takes a record's leaves [N, ...] and latents [N, T + nuisances] and returns normalised
    images, float32 [N, H, W, 3]; `pixels` takes these back to [0, 1], to be looked at.
    """

    name: str
    space: ParameterSpace
    splits: Mapping[str, Split]  # "train" and "test"
    render: Callable[[Record, jax.Array], jax.Array]
    pixels: Callable[[jax.Array], jax.Array]
