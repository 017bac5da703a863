"""The data set objects3d: procedural objects that are rendered on demand, without any files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from contextssl_jax.data.dataset import Dataset, DatasetSpec, Record, from_bytes, make_dataset
from contextssl_jax.data.objects3d.shading import Scene, render
from contextssl_jax.data.objects3d.shapes import Recipes, Shape, draw_instances, draw_recipes
from contextssl_jax.errors import UserError
from contextssl_jax.progress import track
from contextssl_jax.transforms import Group, ParameterSpace, build_space, sample_parameters
from contextssl_jax.transforms.base import group_slices

# Channel statistics of the pixels of views, in [0, 1].
MEAN = (0.63, 0.62, 0.63)
STD = (0.206, 0.2, 0.202)

_SEEDS = {"train": 1, "test": 2}  # streams of randomness, so that no instance is in both splits
_POOL = 3
_BATCH = 128  # views of a pool that are rendered at once
_MAX_CACHED = 1 << 20  # objects of a split whose shapes are kept, 0.6 KB each

# The parameters of a scene group that is neither conditioned nor an unconditioned transform.
_REST = {"rotation": (0.0, 0.0, 0.0, 1.0), "color": (-0.8, -0.6, 0.6, 0.8), "light": (0.4, -0.3)}


@dataclass(frozen=True)
class Objects:
    """A split of any number of objects, each generated from its class and its own seed."""

    stream: int
    size: int
    recipes: Recipes
    space: ParameterSpace

    @cached_property
    def labels(self) -> np.ndarray:
        """Return the classes, int32 [size]."""
        return (np.arange(self.size) % len(self.recipes.size)).astype(np.int32)

    def shapes(self, indices: np.ndarray) -> Shape:
        """Return the shapes of objects at indices [n], leaves [n, 1, ...]; each is generated once.

        The shapes of more than a million objects are not cached.
        """
        if self.size > _MAX_CACHED:
            return Shape(*(leaf[:, None] for leaf in self._generate(indices)))
        cached, generated = self._cache
        missing = indices[~generated[indices]]
        if len(missing):
            for leaf, new in zip(cached, self._generate(missing), strict=True):
                leaf[missing] = new
            generated[missing] = True  # only now, for threads that share the cache
        return Shape(*(leaf[indices, None] for leaf in cached))

    def draw(
        self, rng: np.random.Generator, indices: np.ndarray, views: int
    ) -> tuple[Shape, np.ndarray]:
        """See Split.draw; all views share their object's shape."""
        n = len(indices)
        transform_params = sample_parameters(self.space.all_groups, rng, n * views)
        return self.shapes(indices), transform_params.reshape(n, views, transform_params.shape[-1])

    def _generate(self, indices: np.ndarray) -> Shape:
        """Generate the shapes of objects at indices [n], leaves [n, ...]."""
        seeds = [(self.stream, int(index)) for index in indices]
        return draw_instances(self.recipes, self.labels[indices], seeds)

    @cached_property
    def _cache(self) -> tuple[Shape, np.ndarray]:
        """Uninitialized shapes of all objects, leaves [size, ...], and which are generated."""
        leaves = self._generate(np.arange(1))
        empty = (np.empty((self.size, *leaf.shape[1:]), leaf.dtype) for leaf in leaves)
        return Shape(*empty), np.zeros(self.size, bool)


@dataclass(frozen=True)
class Pool:
    """A split of objects with a fixed number of rendered views each; image groups act afterwards.

    The parameters of image groups in `transform_params` are placeholders: they are sampled anew
    each time that a view is drawn.
    """

    images: np.ndarray  # uint8 [size, V, S, S, 3]
    transform_params: np.ndarray  # float32 [size, V, D]
    labels: np.ndarray
    space: ParameterSpace

    @property
    def size(self) -> int:
        """Return the number of objects."""
        return len(self.images)

    def draw(
        self, rng: np.random.Generator, indices: np.ndarray, views: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """See Split.draw; the drawn views of an object are distinct.

        Raises:
          UserError: the pool has fewer views of each object.
        """
        pooled = self.images.shape[1]
        if views > pooled:
            raise UserError(
                f"--config.objects3d.pool: {pooled} views of each object, but {views} are"
                " needed. Raise it."
            )
        chosen = rng.permuted(np.tile(np.arange(pooled), (len(indices), 1)), axis=1)[:, :views]
        rows = indices[:, None], chosen
        return self.images[rows], self.space.resample_image_groups(rng, self.transform_params[rows])


def build(config: ConfigDict) -> Dataset:
    """Build the data set from `objects3d`, `scene`, `groups`, `unconditioned_transforms`.

    Raises:
      UserError: an option is wrong.
    """
    dataset, objects, draw_image = _build(config)
    pool = config.objects3d.pool
    if not pool:
        return dataset
    return replace(
        dataset, splits={**dataset.splits, "train": fill_pool(objects, pool, draw_image)}
    )


def _build(
    config: ConfigDict,
) -> tuple[Dataset, Objects, Callable[[Record, jax.Array], jax.Array]]:
    """Build the data set without a pool; return its train split and its `draw_image` as well."""
    options = config.objects3d
    space = build_space(config, options.side, scenes=True)
    recipes = draw_recipes(options.classes)
    decode = scene_decoder(space.all_groups, linear=config.scene.hue == "linear")

    def draw_image(record: Record, transform_params: jax.Array) -> jax.Array:
        if isinstance(record, Shape):
            return render(record, decode(transform_params), options.side, options.samples)
        return from_bytes(record, transform_params)

    splits = {
        name: Objects(stream, options[name], recipes, space) for name, stream in _SEEDS.items()
    }
    dataset = make_dataset("objects3d", space, splits, draw_image, MEAN, STD)
    return dataset, splits["train"], draw_image


def _dummy(config: ConfigDict) -> Dataset:
    """Build the data set with a pool of black views, if any, since rendering one takes minutes."""
    dataset, objects, _ = _build(config)
    if not config.objects3d.pool:
        return dataset
    side, indices = config.objects3d.side, np.arange(min(objects.size, config.data.pairs))
    _, transform_params = objects.draw(np.random.default_rng(0), indices, 2)
    images = np.zeros((len(indices), 2, side, side, 3), np.uint8)
    pool = Pool(images, transform_params, np.zeros(len(indices), np.int32), objects.space)
    return replace(dataset, splits={**dataset.splits, "train": pool})


def fill_pool(
    objects: Objects, views: int, draw_image: Callable[[Record, jax.Array], jax.Array]
) -> Pool:
    """Render that many views of every object, the same in every run, before any image group."""
    rng, groups = np.random.default_rng((_POOL, objects.stream)), objects.space.all_groups
    total = objects.size * views
    unused = {g.name: np.zeros((total, g.dim), np.float32) for g in groups if g.render}
    flat = sample_parameters(groups, rng, total, given=unused)
    shape = objects.shapes(np.arange(objects.size))
    drawer = jax.jit(lambda *view: jnp.round(255 * draw_image(*view)).astype(jnp.uint8))
    images: list[np.ndarray] = []
    for start in track(range(0, total, _BATCH), "rendering", "batches"):
        rows = np.minimum(np.arange(start, start + _BATCH), total - 1)
        one = Shape(*(leaf[rows // views, 0] for leaf in shape))
        images.append(np.asarray(drawer(one, flat[rows])))
    stacked = np.concatenate(images)[:total]
    return Pool(
        stacked.reshape(objects.size, views, *stacked.shape[1:]),
        flat.reshape(objects.size, views, flat.shape[1]),
        objects.labels,
        objects.space,
    )


def scene_decoder(groups: Sequence[Group], linear: bool) -> Callable[[jax.Array], Scene]:
    """Return the map from transform parameters [N, D] to scenes; absent groups are at rest.

    Args:
      groups: groups in the order of the parameter vector; image groups are ignored.
      linear: whether the parameters of hues are turns, not cosine and sine.
    """
    entries = dict(zip((g.name for g in groups), group_slices(groups), strict=True))

    def part(transform_params: jax.Array, name: str) -> jax.Array:
        if name not in entries:
            rest = jnp.asarray(_REST[name])
            return jnp.broadcast_to(rest, (len(transform_params), len(rest)))
        found = transform_params[:, entries[name]]
        if name == "color" and linear:
            turns = 2 * np.pi * found
            found = jnp.stack([jnp.cos(turns), jnp.sin(turns)], -1)
            return found.reshape(len(transform_params), -1)
        return found

    def decode(transform_params: jax.Array) -> Scene:
        hues = part(transform_params, "color")
        return Scene(
            rotation=part(transform_params, "rotation"),
            floor=hues[:, :2],
            light=hues[:, 2:],
            towards=part(transform_params, "light"),
        )

    return decode


SPEC = DatasetSpec(build, _dummy)
