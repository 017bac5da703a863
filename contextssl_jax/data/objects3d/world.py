"""The data set objects3d: objects that are drawn when they are looked at, so no data at all."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from contextssl_jax.data.dataset import Dataset, Record
from contextssl_jax.data.objects3d.shading import Scene, render
from contextssl_jax.data.objects3d.shapes import Recipes, Shape, draw_instances, draw_recipes
from contextssl_jax.errors import UserError
from contextssl_jax.transforms import sample_parameters
from contextssl_jax.transforms.scene import SceneGroups, scene_groups

# Of the pixels of views, in [0, 1].
MEAN = (0.63, 0.62, 0.63)
STD = (0.206, 0.2, 0.202)

_SEEDS = {"train": 1, "test": 2}  # streams of randomness, so that no instance is in both
_POOL = 3
_BATCH = 128  # views of a pool that are drawn at once

# How a group's part of the scene rests where the group is neither told nor a nuisance.
_REST = {"rotation": (0.0, 0.0, 0.0, 1.0), "color": (-0.8, -0.6, 0.6, 0.8), "light": (0.4, -0.3)}


@dataclass(frozen=True)
class Objects:
    """A split of objects, each from its class and its own seed; any number of them."""

    stream: int
    size: int
    recipes: Recipes
    groups: SceneGroups

    @property
    def labels(self) -> np.ndarray:
        """Classes, int32 [size]."""
        return (np.arange(self.size) % len(self.recipes.size)).astype(np.int32)

    def draw(
        self, rng: np.random.Generator, indices: np.ndarray, views: int
    ) -> tuple[Shape, np.ndarray]:
        """See Split.draw; all views share their object's shape."""
        transform_params = sample_parameters(self.groups.all, rng, len(indices) * views)
        seeds = [(self.stream, int(index)) for index in indices]
        shape = draw_instances(self.recipes, self.labels[indices], seeds)
        shape = Shape(*(leaf[:, None] for leaf in shape))
        return shape, transform_params.reshape(len(indices), views, transform_params.shape[-1])


@dataclass(frozen=True)
class Pool:
    """A split of objects of which a few views have been rendered, to be drawn again and again."""

    images: np.ndarray  # uint8 [size, V, S, S, 3]
    transform_params: np.ndarray  # [size, V, T + nuisances]
    labels: np.ndarray

    @property
    def size(self) -> int:
        """Number of objects."""
        return len(self.images)

    def draw(
        self, rng: np.random.Generator, indices: np.ndarray, views: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """See Split.draw; an object's drawn views are different ones.

        Raises:
          UserError: the pool has fewer views of each object.
        """
        kept = self.images.shape[1]
        if views > kept:
            raise UserError(f"objects3d.pool: {kept} views of each object; {views} are asked for")
        chosen = rng.permuted(np.tile(np.arange(kept), (len(indices), 1)), axis=1)[:, :views]
        return self.images[indices[:, None], chosen], self.transform_params[
            indices[:, None], chosen
        ]


def build(config: ConfigDict) -> Dataset:
    """Builds the data set from the sections `objects3d` and `scene`, `groups` and `nuisances`.

    Raises:
      UserError: an option is wrong.
    """
    options = config.objects3d
    if options.pool == 1:
        raise UserError("objects3d.pool: must be at least 2, the views of a pair; or 0, no pool")
    groups = scene_groups(config)
    recipes = draw_recipes(options.classes)
    decode = scene_decoder(groups, linear=config.scene.hue == "linear")

    def pictures(record: Record, transform_params: jax.Array) -> jax.Array:
        if isinstance(record, Shape):
            return render(record, decode(transform_params), options.side, options.samples)
        return record.astype(np.float32) / 255

    def normalised(record: Record, transform_params: jax.Array) -> jax.Array:
        return (pictures(record, transform_params) - np.asarray(MEAN, np.float32)) / np.asarray(
            STD, np.float32
        )

    def pixels(images: jax.Array) -> jax.Array:
        return (images * np.asarray(STD, np.float32) + np.asarray(MEAN, np.float32)).clip(0, 1)

    splits = {
        name: Objects(stream, options[name], recipes, groups) for name, stream in _SEEDS.items()
    }
    train = fill_pool(splits["train"], options.pool, pictures) if options.pool else splits["train"]
    return Dataset("objects3d", groups.space(), splits | {"train": train}, normalised, pixels)


def fill_pool(
    objects: Objects, views: int, pictures: Callable[[Record, jax.Array], jax.Array]
) -> Pool:
    """Renders that many views of every object, the same ones in every run."""
    rng = np.random.default_rng((_POOL, objects.stream))
    shape, transform_params = objects.draw(rng, np.arange(objects.size), views)
    total = objects.size * views
    drawer = jax.jit(lambda *view: jnp.round(255 * pictures(*view)).astype(jnp.uint8))
    images: list[np.ndarray] = []
    bar = tqdm(range(0, total, _BATCH), "rendering", unit="batch", disable=None, leave=False)
    for start in bar:
        rows = np.minimum(np.arange(start, start + _BATCH), total - 1)
        one = Shape(*(leaf[rows // views, 0] for leaf in shape))
        images.append(np.asarray(drawer(one, transform_params.reshape(total, -1)[rows])))
    stacked = np.concatenate(images)[:total]
    return Pool(
        stacked.reshape(objects.size, views, *stacked.shape[1:]), transform_params, objects.labels
    )


def scene_decoder(groups: SceneGroups, linear: bool) -> Callable[[jax.Array], Scene]:
    """Returns the map from latents [N, T + nuisances] to scenes; groups that are in none rest.

    Args:
      groups: whose latents there are.
      linear: whether hues are told in turns, not by cosine and sine.
    """
    names = [group.name for group in groups.all]
    ends = np.cumsum([group.dim for group in groups.all])

    def part(transform_params: jax.Array, name: str) -> jax.Array:
        if name not in names:
            return jnp.broadcast_to(
                jnp.asarray(_REST[name]), (len(transform_params), len(_REST[name]))
            )
        i = names.index(name)
        found = transform_params[:, ends[i] - groups.all[i].dim : ends[i]]
        if name == "color" and linear:
            turns = 2 * np.pi * found
            found = jnp.stack([jnp.cos(turns), jnp.sin(turns)], -1).reshape(
                len(transform_params), -1
            )
        return found

    def decode(transform_params: jax.Array) -> Scene:
        hues = part(transform_params, "color")
        return Scene(
            part(transform_params, "rotation"),
            hues[:, :2],
            hues[:, 2:],
            part(transform_params, "light"),
        )

    return decode
