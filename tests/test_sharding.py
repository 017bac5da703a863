"""Sharded optimizer state: the update of one device, on shards, and the same checkpoints."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath

from configs import base
from contextssl_jax.distributed.parallel import Parallel, choose_parallel
from contextssl_jax.distributed.sharding import (
    gather_shards,
    mean_shards,
    norm_of_shards,
    partition_specs,
    shard_shapes,
    split_axis,
)
from contextssl_jax.run.checkpoint import Checkpoint, Checkpoints
from contextssl_jax.step import (
    TrainState,
    build_optimizer,
    partition_state,
    start_state,
    train_step,
)

# Split along the first axis and the last; replicated: three sizes that four does not divide, and
# one axis.
SHAPES = {"first": (8, 3), "last": (3, 3, 2, 4), "odd": (3, 5), "bias": (8,), "scalar": ()}
SPLIT = ("first", "last")


def draw(seed: int, *leading: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=(*leading, *shape)).astype(np.float32)
        for name, shape in SHAPES.items()
    }


def sharded() -> Parallel:
    return choose_parallel("auto", 8, partition=partition_state)


@pytest.mark.parametrize(
    "shape, shards, axis",
    [((8, 4), 4, 0), ((6, 8), 4, 1), ((3, 3, 64, 64), 8, 2), ((3, 3, 64, 64), 3, 0),
     ((6, 10), 4, None), ((8,), 4, None), ((), 4, None), ((8, 4), 1, None), ((0, 4), 4, 1)],
)  # fmt: skip
def test_arrays_are_split_along_the_first_axis_that_divides(shape, shards, axis):
    assert split_axis(shape, shards) == axis


def test_shards_of_a_gradient_of_parameters_and_of_a_norm():
    grads, params = draw(0, 4), draw(1)
    place = choose_parallel("auto", 8, partition=partition_specs)

    def function(own, grads):
        mean = mean_shards(jax.tree.map(lambda leaf: leaf[0], grads), "data", 4)
        assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, mean)
        shapes = jax.tree.map(lambda leaf: leaf.shape, shard_shapes(params, 4))
        assert jax.tree.map(jnp.shape, own) == shapes
        assert own["first"].shape == (2, 3) and own["last"].shape == (3, 3, 2, 1)
        gathered = [gather_shards(tree, params, "data", 4) for tree in (mean, own)]
        return own, (*gathered, norm_of_shards(mean, params, "data", 4))

    own, results = place.compile(function)(place.place(params), place.shard(grads))
    mean, gathered, norm = place.fetch(results)
    assert jax.tree.all(jax.tree.map(np.array_equal, place.fetch(own), params))
    assert jax.tree.all(jax.tree.map(np.array_equal, place.local_copy(own), params))
    expected = jax.tree.map(lambda leaf: leaf.mean(0), grads)
    for name in SHAPES:
        np.testing.assert_allclose(mean[name], expected[name], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(gathered[name], params[name])
    np.testing.assert_allclose(norm, optax.tree.norm(expected), rtol=1e-5)


def loss(params, batch_stats, batch, key):
    """A loss whose gradient is the mean of the batch over its rows."""
    products = jax.tree.map(lambda p, x: (p * x).sum(tuple(range(1, x.ndim))), params, batch)
    value = sum(jax.tree.leaves(products)).mean()
    return value, (batch_stats, {})


def options(**changes):
    train = base.get_config().train
    train.update(learning_rate=0.1, warmup_steps=0, steps=10, weight_decay=0.3, **changes)
    return train


def steps(place: Parallel, train, count: int = 2, **changes) -> tuple[TrainState, dict]:
    """Take steps, and return the state on the devices and the metrics."""
    optimizer = build_optimizer(train)
    start = jax.device_get(start_state({"params": draw(1), "batch_stats": {}}, optimizer))
    step = functools.partial(
        train_step,
        method=types.SimpleNamespace(loss=loss),
        optimizer=optimizer,
        schedule=lambda step: 0.0,
        axis=place.axis,
        whole_shapes=(lambda: start) if place.shards > 1 else None,
        **changes,
    )
    key_data = place.replicate(np.asarray(jax.random.key_data(jax.random.key(0))))
    state, compiled = place.place(start), place.compile(step)
    for i in range(count):
        state, metrics = compiled(state, place.shard(draw(2 + i, 8)), key_data)
    return state, metrics


ONE = Parallel("jit", (jax.devices()[0],))


@pytest.mark.parametrize("optimizer, clip", [("adam", 0.5), ("adamw", 0.5), ("adam", 0.0)])
def test_a_sharded_update_is_that_of_one_device(optimizer, clip):
    train, place = options(optimizer=optimizer, clip=clip), sharded()
    (one, expected), (four, metrics) = (steps(each, train) for each in (ONE, place))
    assert expected["gradient_norm"] > 1  # so that the limit takes effect, and scales the moments
    np.testing.assert_allclose(metrics["gradient_norm"], expected["gradient_norm"], rtol=1e-5)
    found, expected = place.fetch(four), ONE.fetch(one)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_device_holds_its_shards_of_parameters_and_moments():
    place = sharded()
    state, _ = steps(place, options(), 1)
    for name, shape in SHAPES.items():
        moments = [state.opt_state[2].mu[name], state.opt_state[2].nu[name]]
        held = [leaf.addressable_data(3).size for leaf in (*moments, state.params[name])]
        size = int(np.prod(shape))
        assert held == [size // 4 if name in SPLIT else size] * 3


@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
def test_the_optimizer_state_is_replicated_without_the_option_and_under_pmap(mode):
    partition = partition_state if mode == "pmap" else None
    place = choose_parallel(mode, 8, partition=partition)
    assert place.shards == 1
    state, _ = steps(place, options(), 1)
    first = state.opt_state[2].mu["first"]
    assert first.addressable_data(3).size == 24


def test_checkpoints_of_shards_are_those_of_one_device(tmp_path):
    """They are read by any number of devices, and the shards of a checkpoint are placed again."""
    place = sharded()
    state, _ = steps(place, options(), 1)
    host = place.fetch(state)
    with Checkpoints(epath.Path(tmp_path), 1) as checkpoints:
        checkpoints.save(Checkpoint(1, place.global_arrays(state), {}))
        checkpoints.wait()
        template = jax.tree.map(np.empty_like, ONE.fetch(steps(ONE, options(), 1)[0]))
        restored = checkpoints.restore(template)
    again = place.place(restored.state)
    for tree in (restored.state, place.fetch(again), ONE.fetch(ONE.place(restored.state))):
        assert jax.tree.all(jax.tree.map(np.array_equal, tree, host))
    assert jax.tree.all(
        jax.tree.map(lambda a, b: a.sharding.is_equivalent_to(b.sharding, a.ndim), again, state)
    )


@pytest.mark.parametrize("mode", ["sharded", "pmap"])
def test_gradients_cross_devices_in_bfloat16(mode):
    place = sharded() if mode == "sharded" else choose_parallel(mode, 8)
    train = options(beta1=0.0, optimizer="adamw")  # the first moment is the gradient
    exact, rounded = (
        place.fetch(steps(place, train, 1, gradient_dtype=dtype)[0]).opt_state[1].mu
        for dtype in ("float32", "bfloat16")
    )
    for name in SHAPES:
        error = np.abs(exact[name] - rounded[name]).max()
        # Four terms and three sums, each rounded to 8 bits.
        assert 0 < error < 7 * 2**-8 * max(1.0, np.abs(exact[name]).max())
        assert rounded[name].dtype == np.float32
