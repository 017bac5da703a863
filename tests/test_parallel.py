"""One device and four take the same steps, by pmap and by shard_map."""

import functools

import jax
import numpy as np
import pytest
from quick import run as run_once
from small_methods import small, small_config

from contextssl_jax.data import DATASETS
from contextssl_jax.data.contexts import context_batches, parse_environments
from contextssl_jax.distributed import parallel
from contextssl_jax.errors import UserError
from contextssl_jax.methods import METHODS
from contextssl_jax.models import ENCODERS
from contextssl_jax.models.resnet import BasicBlock, ResNet
from contextssl_jax.step import TrainState, build_optimizer, build_schedule, train_step


def setting(config, mode: str):
    config.train.parallel = mode
    dataset = DATASETS["synthetic"].build(config)
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


def run(config, mode: str, variables, steps: int = 2):
    """Final state and metrics of the last step, on the host."""
    place, method, batches = setting(config, mode)
    optimizer, schedule = build_optimizer(config.train), build_schedule(config.train)
    moments = jax.device_get(optimizer.init(variables["params"]))
    state = TrainState(np.int32(0), variables["params"], variables["batch_stats"], moments)
    state, key_data = place.replicate((state, np.asarray(jax.random.key_data(jax.random.key(1)))))
    step = functools.partial(
        train_step,
        method=method,
        optimizer=optimizer,
        schedule=schedule,
        axis=place.axis,
    )
    compiled = place.compile(step)
    for i in range(steps):
        state, metrics = compiled(state, place.shard(batches[i]), key_data)
    return place.fetch(state), place.fetch(metrics)


def gradients(config, mode: str, variables):
    """Mean gradient over devices, batch statistics and metrics of one batch."""
    place, method, batches = setting(config, mode)

    def function(variables, batch):
        gradient = jax.value_and_grad(method.loss, has_aux=True)
        key = jax.random.key(1)
        (_, aux), grads = gradient(variables["params"], variables["batch_stats"], batch, key)
        if place.axis:
            grads = jax.lax.pmean(grads, place.axis)
        return {"gradients": grads, "statistics and metrics": aux}, ()

    placed = place.replicate(variables), place.shard(batches[0])
    return place.fetch(run_once(place.compile(function), *placed)[0])


def assert_close(one, other, least: float = 1e-3) -> None:
    """Leaves differ by rounding of their largest entry, or of `least`."""
    paths = jax.tree_util.tree_leaves_with_path(one)
    for (path, a), b in zip(paths, jax.tree.leaves(other), strict=True):
        scale = max(least, np.nanmax(np.abs(a)))
        np.testing.assert_allclose(
            b / scale, a / scale, atol=2e-5, err_msg=jax.tree_util.keystr(path)
        )


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
    start = variables(config)
    one = gradients(config, "jit", start)
    for mode in ("pmap", "shard_map"):
        assert_close(one, gradients(config, mode, start))


@pytest.mark.parametrize("name", [name for name in METHODS if name != "contextssl"])
def test_every_method_on_one_device_equals_itself_on_four(name):
    config, start = small_config(name), small(name).variables
    one = gradients(config, "jit", start)
    for mode in ("pmap", "shard_map"):
        # Gradients of biases that normalisation takes away are rounding of what is far larger.
        assert_close(one, gradients(config, mode, start), least=10.0)


def test_steps_on_one_device_equal_steps_on_four(config):
    start = variables(config)
    state, metrics = run(config, "jit", start)
    for mode in ("pmap", "shard_map"):
        other, other_metrics = run(config, mode, start)
        assert other.step == state.step == 2
        assert_close(metrics, other_metrics)
        for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(other.params), strict=True):
            np.testing.assert_allclose(b, a, atol=2e-5)


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


def test_auto_is_pmap_on_several_devices():
    assert parallel.choose_parallel("auto", 8).mode == "pmap"


@pytest.mark.parametrize("mode, contexts", [("pmap", 6), ("shard_map", 2)])
def test_impossible_layouts_are_an_error(mode, contexts):
    with pytest.raises(UserError, match="--config.data.contexts"):
        parallel.choose_parallel(mode, contexts)
