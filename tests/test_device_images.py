"""Images on the devices: the host sends indices, and every step is the same to the bit."""

from functools import cache

import jax
import numpy as np
import pytest
from small_methods import small, small_config

from contextssl_jax.errors import UserError
from contextssl_jax.experiment import Experiment, build_experiment
from contextssl_jax.step import TrainState, build_optimizer


@cache
def build(mode: str, on_device: bool) -> Experiment:
    small("simclr")  # registers the encoder
    config = small_config("simclr")
    config.train.parallel = mode
    config.data.on_device = on_device
    return build_experiment(config)


def test_batches_have_indices_and_the_same_views():
    whole, indexed = build("jit", False), build("jit", True)
    images = whole.dataset.splits["train"].images
    assert indexed.images.shape == (64, 192) and whole.images is None
    for step in (0, 7):
        one, other = whole.batches[step], indexed.batches[step]
        assert other.record.shape == (4, 3, 1) and other.record.dtype == np.int32
        np.testing.assert_array_equal(images[other.record], one.record)
        for name in ("transform_params", "environments", "position", "labels"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("mode", ["jit", "pmap", "shard_map"])
def test_steps_are_the_same_to_the_bit(mode):
    made, results = small("simclr"), []
    moments = build_optimizer(small_config("simclr").train).init(made.params)
    start = TrainState(np.int32(0), made.params, made.batch_stats, jax.device_get(moments))
    for on_device in (False, True):
        experiment = build(mode, on_device)
        place, metrics = experiment.parallel, []
        state = place.place(start)
        constants = place.replicate((experiment.key_data, experiment.images))
        for i in range(3):
            batch = place.shard(experiment.batches[i])
            state, measured = experiment.step(state, batch, *constants)
            metrics.append(place.fetch(measured))
        results.append((metrics, place.fetch(state)))
    whole, indexed = results
    assert len({float(step["loss"]) for step in whole[0]}) == 3
    jax.tree.map(np.testing.assert_array_equal, whole, indexed)


def test_the_images_are_an_argument_of_the_program():
    experiment = build("jit", True)
    shapes = jax.eval_shape(lambda: (experiment.batches[0], experiment.key_data, experiment.images))
    text = experiment.step.lower(experiment.init_shapes(), *shapes).as_text()
    inputs = next(line for line in text.splitlines() if "func.func public @main" in line)
    assert "tensor<64x192xui8>" in inputs
    assert not [line for line in text.splitlines() if "constant" in line and "ui8" in line]


def test_other_data_sets_are_one_line():
    config = small_config("simclr")
    config.groups = config.environments = ("rotation",)
    config.data.update(name="objects3d", on_device=True)
    with pytest.raises(UserError, match="--config.data.on_device: the views of objects3d are not"):
        build_experiment(config)
