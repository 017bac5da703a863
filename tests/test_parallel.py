"""One device and four take the same steps, by pmap and by shard_map, sharded or not."""

import functools
from collections.abc import Sequence

import jax
import numpy as np
import pytest
from small_methods import small, small_config

from contextssl_jax.data import DATASETS
from contextssl_jax.data.contexts import context_batches, parse_environments
from contextssl_jax.distributed import parallel
from contextssl_jax.errors import UserError
from contextssl_jax.methods import METHODS
from contextssl_jax.models import ENCODERS
from contextssl_jax.models.resnet import BasicBlock, ResNet
from contextssl_jax.step import (
    TrainState,
    build_optimizer,
    build_schedule,
    partition_state,
    train_step,
)


def setting(config, mode: str):
    config.train.parallel = mode
    dataset = DATASETS["synthetic"].build(config)
    if mode == "sharded":
        place = parallel.choose_parallel("auto", config.data.contexts, partition=partition_state)
    else:
        place = parallel.choose_parallel(mode, config.data.contexts)
    method = METHODS[config.method](config, dataset, place.axis)
    batches = context_batches(
        dataset.splits["train"],
        parse_environments(config.environments, config.groups),
        seed=0,
        contexts=config.data.contexts,
        pairs=config.data.pairs,
        environment_per=config.data.environment_per,
    )
    return place, method, batches


def variables(config):
    _, method, batches = setting(config, "jit")
    return jax.device_get(jax.jit(method.init)(jax.random.key(0), batches[0]))


_SUMS = 2e-6  # relative rounding of float32 sums of some dozens of terms
ORDERS = slice(None), slice(None, None, -1)  # of the contexts of a batch: as drawn, and reversed


def run(config, mode: str, variables, orders: Sequence[slice] = ORDERS[:1], steps: int = 2):
    """Return the parameters after some steps and the metrics of the last, by order."""
    place, method, batches = setting(config, mode)
    optimizer, schedule = build_optimizer(config.train), build_schedule(config.train)
    moments = jax.device_get(optimizer.init(variables["params"]))
    start = TrainState(np.int32(0), variables["params"], variables["batch_stats"], moments)
    key_data = place.replicate(np.asarray(jax.random.key_data(jax.random.key(1))))
    step = functools.partial(
        train_step,
        method=method,
        optimizer=optimizer,
        schedule=schedule,
        axis=place.axis,
        whole_shapes=(lambda: start) if place.shards > 1 else None,
    )
    compiled, results = place.compile(step), []
    for order in orders:
        state = place.place(start)
        for i in range(steps):
            batch = jax.tree.map(lambda leaf, order=order: leaf[order], batches[i])
            state, metrics = compiled(state, place.shard(batch), key_data)
        state = place.fetch(state)
        assert state.step == steps
        results.append((state.params, place.fetch(metrics)))
    return results


def gradients(config, mode: str, variables, orders: Sequence[slice] = ORDERS[:1]):
    """Return the mean gradient over devices, statistics and metrics of one batch, by order."""
    place, method, batches = setting(config, mode)

    def function(variables, batch):
        gradient = jax.value_and_grad(method.loss, has_aux=True)
        key = jax.random.key(1)
        (_, aux), grads = gradient(variables["params"], variables["batch_stats"], batch, key)
        if place.axis:
            grads = jax.lax.pmean(grads, place.axis)
        return {"gradients": grads, "statistics and metrics": aux}, ()

    compiled, results = place.compile(function), []
    for order in orders:
        batch = jax.tree.map(lambda leaf, order=order: leaf[order], batches[0])
        found, _ = compiled(place.replicate(variables), place.shard(batch))
        results.append(place.fetch(found))
    return results


def difference(one, other, least: float = 1e-3) -> float:
    """Return the largest of all leaves, relative to the largest entry of each, or to `least`."""
    largest = 0.0
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
        scale = max(least, np.nanmax(np.abs(a)))
        largest = max(largest, np.nanmax(np.abs(np.subtract(a, b))) / scale)
    return largest


def assert_one_device_equals_four(
    results, config, start, least: float = 1e-3, modes: Sequence[str] = ("pmap", "shard_map")
) -> None:
    """Assert that devices make no more difference than another order of summation.

    Args:
      results: `run` or `gradients`.
      config: the options.
      start: the variables.
      least: see `difference`.
      modes: of four devices.
    """
    one, reordered = results(config, "jit", start, ORDERS)
    rounding = difference(one, reordered, least)
    assert rounding < 1e-4
    bound = 10 * max(rounding, _SUMS)
    for mode in modes:
        assert difference(one, results(config, mode, start)[0], least) < bound


@pytest.fixture
def config(config, monkeypatch):
    """A ResNet of 2 blocks, so that batch statistics cross devices, and 2 contexts a device."""
    tiny = functools.partial(ResNet, (1, 1), BasicBlock, "cifar", 4)
    monkeypatch.setitem(ENCODERS, "tiny", lambda model, axis: tiny(axis))
    config.model.encoder = "tiny"
    config.data.update(contexts=8, pairs=4)
    config.unconditioned_transforms = ("color",)
    # Rates at which rounding does not decide the sign of an update: Adam's first steps do that.
    config.train.update(optimizer="adamw", beta2=0.9, learning_rate=1e-4)
    return config


VARIANTS = {
    "official": dict(mask=dict(per_layer=True, per_context=False)),
    "per context": dict(
        mask=dict(per_layer=False, per_context=True, probability_low=0.2),
        loss=dict(negatives="context", clamp=False),
        data=dict(environment_per="context"),
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_device_equals_four(config, variant):
    for section, options in VARIANTS[variant].items():
        config[section].update(options)
    assert_one_device_equals_four(gradients, config, variables(config))


@pytest.mark.parametrize("name", [name for name in METHODS if name != "contextssl"])
def test_every_method_on_one_device_equals_itself_on_four(name):
    # Gradients of biases that normalisation takes away are rounding of what is far larger.
    start = small(name).variables
    assert_one_device_equals_four(gradients, small_config(name), start, least=10.0)


def test_steps_on_one_device_equal_steps_on_four(config):
    # Parameters change by 1e-4 a step, whatever their size.
    start = variables(config)
    assert_one_device_equals_four(run, config, start, least=1.0, modes=("pmap", "sharded"))


def test_placing_and_fetching_returns_what_was_placed(config):
    tree = {"a": np.arange(6.0).reshape(2, 3), "b": np.int32(4)}
    for mode in ("jit", "pmap", "shard_map"):
        place = parallel.choose_parallel(mode, 8)
        back = place.fetch(place.replicate(tree))
        assert jax.tree.all(jax.tree.map(np.array_equal, back, tree))


def test_what_is_fetched_outlives_the_donated_state():
    place = parallel.choose_parallel("jit", 8)
    step = place.compile(lambda state, batch: (state + batch, ()))
    state = place.replicate(np.zeros(1000))
    before = place.fetch(state)
    for _ in range(3):
        state, _ = step(state, place.shard(np.ones(1000)))
    assert (before == 0).all() and (place.fetch(state) == 3).all()


def test_auto_is_shard_map_on_several_devices():
    assert parallel.choose_parallel("auto", 8).mode == "shard_map"


@pytest.mark.parametrize("mode, contexts", [("pmap", 6), ("shard_map", 2)])
def test_impossible_layouts_are_an_error(mode, contexts):
    with pytest.raises(UserError, match="--config.data.contexts"):
        parallel.choose_parallel(mode, contexts)
