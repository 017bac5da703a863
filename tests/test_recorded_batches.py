"""Batches and statistics of the data sets stay those that were recorded, to three decimals."""

import hashlib

import jax
import miniature3d
import numpy as np
import pytest

from configs import debug, quickstart
from contextssl_jax.data import DATASETS
from contextssl_jax.data.contexts import context_batches, parse_environments


def synthetic():
    config = debug.get_config()
    config.groups = config.environments = ("crop", "blur")
    config.unconditioned_transforms = ("flip", "color")
    return config


def objects3d(pool, hue):
    config = quickstart.get_config()
    config.objects3d.update(train=24, test=16, side=8, pool=pool)
    config.scene.hue = hue
    return config


def bench3d(folder):
    config = debug.get_config()
    config.groups = config.environments = ("rotation", "color")
    config.data.name = "3diebench"
    config.bench3d.update(path=str(miniature3d.prepared(folder, 16).out), side=16)
    return config


def digest(*trees) -> str:
    """Return a hash of the leaves, floats to three decimals."""
    state = hashlib.sha256()
    for leaf in jax.tree.leaves(trees):
        array = np.asarray(leaf)
        state.update(f"{array.dtype}{array.shape}".encode())
        if array.dtype.kind == "f":
            array = np.rint(1000 * array.astype(np.float64)).astype(np.int64)
        state.update(array.tobytes())
    return state.hexdigest()[:12]


@pytest.mark.parametrize(
    ("make", "batches", "statistics"),
    [
        (lambda _: synthetic(), "4dba5806e53f", "61374d9ce92b"),
        (lambda _: objects3d(0, "circle"), "0ca6bba64119", "3b879ea7d01e"),
        (lambda _: objects3d(4, "circle"), "c30b9f6b2137", "3b879ea7d01e"),
        (lambda _: objects3d(4, "linear"), "85c7bb53f385", "6c7dad1d4b9e"),
        (bench3d, "1a1f511e2680", "3b879ea7d01e"),
    ],
)
def test_batches_are_the_recorded_ones(make, batches, statistics, tmp_path):
    config = make(tmp_path)
    dataset = DATASETS[config.data.name].build(config)
    drawn = []
    for split in ("train", "test"):
        contexts = context_batches(
            dataset.splits[split], parse_environments(config.environments, config.groups), seed=0,
            contexts=2, pairs=4, environment_per="context",
        )  # fmt: skip
        # Without pixels, which depend on the machine's arithmetic; the parameters name the views.
        drawn += [(contexts[i].transform_params, *contexts[i][2:]) for i in (0, 3)]
    space = dataset.space
    fitted = (space.param_mean, space.param_std, space.action_mean, space.action_std)
    found = digest(drawn), digest(fitted, space.param_group_ids, space.action_group_ids)
    assert found == (batches, statistics)
