"""A batch taken in parts: the whole batch's step where contexts do not meet, less memory."""

import functools
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from quick import compiled, run

from contextssl_jax.data.contexts import ContextBatch
from contextssl_jax.errors import UserError
from contextssl_jax.experiment import build_experiment
from contextssl_jax.models import ENCODERS
from contextssl_jax.models.batchnorm import BatchNorm
from contextssl_jax.step import TrainState, train_step

OPTIMIZER = optax.sgd(0.1, momentum=0.9)  # so that all of a state is as exact as the gradient

CONTEXTS = {
    "data": dict(contexts=16, pairs=4, environment_per="context"),
    "mask": dict(probability=0.6, probability_low=0.2, per_layer=False, per_context=True),
    "loss": dict(negatives="context", clamp=False),
}
SHARED = {
    "data": dict(contexts=4, pairs=4, environment_per="all"),
    "mask": dict(probability=0.6, per_layer=True, per_context=False),
    "loss": dict(negatives="context", clamp=False),
    "model.transformer": dict(blocks=2),
}
MEETING = {
    "data": dict(contexts=4, pairs=4, environment_per="all"),
    "mask": dict(probability=0.6, per_layer=False, per_context=True),
    "loss": dict(negatives="batch"),
    "model": dict(encoder="tiny"),
}


class Tiny(nn.Module):
    """An encoder in which contexts meet."""

    axis: str | None

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Dense(8, use_bias=False)(images.reshape(len(images), -1))
        return nn.Dense(16)(nn.relu(BatchNorm(train, self.axis)(x)))


def build(config, options: dict, mode: str = "jit", parts: int = 1):
    """The experiment, and a state at step 1 with weights that are large enough to matter."""
    config.groups, config.environments, config.unconditioned_transforms = (
        ("blur",),
        ("blur", "none"),
        (),
    )
    config.model.patch.update(widths=(4, 8), features=16)
    config.model.transformer.update(width=16, outputs=8, blocks=1)
    config.update_from_flattened_dict(
        {f"{name}.{k}": v for name, section in options.items() for k, v in section.items()}
    )
    config.train.update(parallel=mode, accumulate_steps=parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("contextssl_jax.experiment.build_optimizer", lambda train: OPTIMIZER)
        patch.setitem(ENCODERS, "tiny", lambda model, axis: Tiny(axis))
        experiment = build_experiment(config)
    rng = np.random.default_rng(0)
    shapes = experiment.template()
    params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(x.dtype), shapes.params)
    stats = jax.tree.map(np.ones_like, shapes.batch_stats)
    moments = jax.tree.map(np.zeros_like, shapes.opt_state)
    return experiment, TrainState(np.int32(1), params, stats, moments)


STEPS: dict = {}


def take(config, options: dict, mode: str, parts: int, **model):
    """State and metrics after one step, on the host, and bytes of its temporaries; made once."""
    key = str((options, mode, parts, model))
    if key not in STEPS:
        config.model.update(model)
        experiment, state = build(config, options, mode, parts)
        place = experiment.parallel
        state, key_data = place.replicate((state, experiment.key_data))
        arguments = state, place.shard(experiment.batches[0]), key_data
        step = compiled(experiment.step, *arguments)
        state, metrics = place.fetch(step(*arguments))
        STEPS[key] = state, metrics, step.memory_analysis().temp_size_in_bytes
    return STEPS[key]


def difference(one, other) -> float:
    """The largest of any leaf, relative to that leaf's largest entry."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    scaled = [np.abs(a - b).max() / max(np.abs(a).max(), 1e-6) for a, b in pairs]
    return float(max(scaled))


def exact(metrics: dict) -> dict:
    """The metrics that are means over contexts, not ratios of such means."""
    return {k: v for k, v in metrics.items() if not k.startswith(("early_late", "predictor_r2"))}


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("mode", ["jit", "pmap", "shard_map"])
def test_parts_take_the_step_of_the_whole_batch(config, mode, parts):
    state, metrics, _ = take(config, CONTEXTS, "jit", 1)
    in_parts, metrics_in_parts, _ = take(config, CONTEXTS, mode, parts)
    assert difference(state, in_parts) < 3e-5
    assert difference(exact(metrics), exact(metrics_in_parts)) < 3e-5


def test_one_device_in_four_parts_is_four_devices(config):
    """Also where the batch shares its masks, and blocks are computed again."""
    four, metrics, _ = take(config, SHARED, "pmap", 1)
    one, metrics_in_parts, _ = take(config, SHARED, "jit", 4, remat=True)
    assert difference(four, one) < 3e-5
    # Every part shows each group as often: R² is a mean of equal shares.
    result = {name: value for name, value in metrics.items() if name != "early_late"}
    assert difference(result, {name: metrics_in_parts[name] for name in result}) < 3e-5


def test_parts_need_less_memory(config):
    whole, four = take(config, CONTEXTS, "jit", 1)[2], take(config, CONTEXTS, "jit", 4)[2]
    assert four < 0.35 * whole


def test_contexts_that_meet_do_so_within_a_part(config):
    experiment, state = build(config, MEETING, parts=2)
    batch, place = experiment.batches[0], experiment.parallel
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 1), 1)  # of steps; of step 1
    loss = jax.grad(experiment.method.loss, has_aux=True)

    def part(rows: slice):
        return jax.tree.map(lambda leaf: leaf[rows], batch)

    start = state.params, state.batch_stats
    gradient = compiled(loss, *start, part(slice(0, 2)), key)
    first, (batch_stats, _) = gradient(*start, part(slice(0, 2)), key)
    second, (batch_stats, _) = gradient(state.params, batch_stats, part(slice(2, 4)), key)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, first, second)
    placed, key_data = place.replicate((state, experiment.key_data))
    after, metrics = run(experiment.step, placed, place.shard(batch), key_data)
    assert difference(mean, after.opt_state[0].trace) < 3e-5
    assert difference(optax.tree.norm(mean), metrics["gradient_norm"]) < 3e-5
    assert difference(batch_stats, after.batch_stats) < 3e-5
    whole, (batch_stats, _) = run(loss, *start, batch, key)
    assert difference(whole, mean) > 0.02 and difference(batch_stats, after.batch_stats) > 0.02


def fake_step(metrics, parts: int, axis: str | None = None):
    """A step of a method whose loss is w * mean(position), with metrics of the positions."""

    def loss(params, batch_stats, batch, key):
        value = (params["w"] * batch.position).mean()
        return value, ({"calls": batch_stats["calls"] + 1}, metrics(batch.position))

    optimizer = optax.sgd(1.0)
    state = TrainState(
        jnp.int32(0), {"w": jnp.ones(3)}, {"calls": jnp.int32(0)}, optimizer.init({"w": 0.0})
    )
    step = functools.partial(
        train_step,
        key_data=jax.random.key_data(jax.random.key(0)),
        method=types.SimpleNamespace(loss=loss),
        optimizer=optimizer,
        schedule=lambda step: 0.0,
        axis=axis,
        parts=parts,
    )
    position = jnp.arange(12, dtype=jnp.float32)[:, None] * jnp.ones(3)
    return step, state, ContextBatch((), position, position, position, position)


def test_metrics_are_means_over_the_parts_that_determine_them():
    def metrics(position):
        first = position[0, 0]  # 0, 4 and 8
        return {
            "loss": first,
            "some": jnp.where(first == 4, jnp.nan, first),
            "none": jnp.nan * first,
        }

    step, state, batch = fake_step(metrics, parts=3)
    after, result = step(state, batch)
    assert (result["loss"], result["some"]) == (4, 4) and np.isnan(result["none"])
    assert after.batch_stats["calls"] == 3 and after.step == 1
    np.testing.assert_allclose(state.params["w"] - after.params["w"], 5.5 / 3, rtol=1e-6)
    np.testing.assert_allclose(result["gradient_norm"], 5.5 / 3**0.5, rtol=1e-6)


def test_a_part_whose_loss_is_not_finite_shows():
    def metrics(position):
        return {"loss": jnp.where(position[0, 0] == 4, jnp.nan, 1.0)}

    step, state, batch = fake_step(metrics, parts=3)
    assert np.isnan(step(state, batch)[1]["loss"])


def test_one_part_is_no_loop_and_devices_meet_once():
    def program(parts: int):
        step, state, batch = fake_step(lambda p: {"loss": p.mean()}, parts, "data")
        return jax.make_jaxpr(step, axis_env=[("data", 2)])(state, batch).jaxpr

    names = [equation.primitive.name for equation in program(1).eqns]
    assert "scan" not in names
    loops = [equation for equation in program(3).eqns if equation.primitive.name == "scan"]
    assert len(loops) == 1
    assert "psum" in str(program(3)) and "psum" not in str(loops[0])


@pytest.mark.parametrize("mode, parts", [("jit", 3), ("jit", 16), ("pmap", 4)])
def test_unequal_parts_are_an_error(config, mode, parts):
    config.data.contexts = 8
    config.train.update(parallel=mode, accumulate_steps=parts)
    with pytest.raises(UserError, match="train.accumulate_steps"):
        build_experiment(config)
