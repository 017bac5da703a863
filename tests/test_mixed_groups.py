"""Image groups beside scene groups: rendering, and training and evaluation on 3D data sets."""

import json

import jax
import miniature3d
import numpy as np
import pytest
from tiny import TINY, run

from configs import base
from contextssl_jax.data import DATASETS
from contextssl_jax.transforms.base import group_slices

TRAINING = ("--config=configs/objects3d_rotation_blur.py",
            *(option for option in TINY if "eval.environments" not in option),
            "--config.objects3d.side=16", "--config.objects3d.train=40",
            "--config.objects3d.test=20", "--config.objects3d.pool=5")  # fmt: skip


def build(groups, unconditioned_transforms=("light",), pool=0):
    config = base.get_config()
    config.data.name = "objects3d"
    config.groups, config.unconditioned_transforms = groups, unconditioned_transforms
    config.objects3d.update(side=16, train=12, test=6, pool=pool)
    return DATASETS["objects3d"].build(config)


def entries(dataset, name):
    groups = dataset.space.all_groups
    return group_slices(groups)[[group.name for group in groups].index(name)]


def first_views(dataset, seed=0):
    record, transform_params = dataset.splits["train"].draw(
        np.random.default_rng(seed), np.arange(6), 2
    )
    return jax.tree.map(lambda leaf: leaf[:, 0], record), transform_params[:, 0]


@pytest.mark.parametrize("pool", [0, 2])
def test_image_groups_at_identity_change_nothing(pool):
    mixed = build(("rotation", "blur", "crop"), ("light", "flip"), pool)
    scene = build(("rotation",), pool=pool)
    record, transform_params = first_views(mixed)
    for name in ("blur", "crop", "flip"):
        (group,) = [group for group in mixed.space.all_groups if group.name == name]
        transform_params[:, entries(mixed, name)] = group.identity
    names = ("rotation", "light")
    of_scene = np.concatenate([transform_params[:, entries(mixed, n)] for n in names], axis=1)
    np.testing.assert_allclose(
        mixed.render(record, transform_params), scene.render(record, of_scene), atol=1e-4
    )


def test_image_groups_act_on_the_rendered_scene():
    mixed = build(("rotation", "blur"))
    record, transform_params = first_views(mixed)
    sharp, blurred = transform_params.copy(), transform_params.copy()
    sharp[:, entries(mixed, "blur")], blurred[:, entries(mixed, "blur")] = 0, 2
    sharp, blurred = (np.asarray(mixed.pixels(mixed.render(record, t))) for t in (sharp, blurred))
    np.testing.assert_allclose(sharp.mean((1, 2)), blurred.mean((1, 2)), atol=0.05)
    assert (np.diff(blurred, axis=1).std((1, 2)) < 0.7 * np.diff(sharp, axis=1).std((1, 2))).all()


def test_a_pool_has_the_same_scenes_with_image_groups():
    """And the parameters of these are sampled each time that a view is drawn."""
    mixed, scene = build(("blur", "rotation"), pool=2), build(("rotation",), pool=2)
    np.testing.assert_array_equal(mixed.splits["train"].images, scene.splits["train"].images)
    drawn = [first_views(mixed, seed)[1][:, 0] for seed in range(3)]
    assert len(np.unique(np.concatenate(drawn))) == 18


def test_objects3d_trains_and_evaluates(tmp_path):
    train_and_evaluate(tmp_path, "--config.monitor.every=0")


def test_3diebench_trains_and_evaluates(tmp_path):
    miniature = miniature3d.prepared(tmp_path / "data", 16)
    train_and_evaluate(
        tmp_path,
        "--config.data.name=3diebench", f"--config.bench3d.path={miniature.out}",
        "--config.bench3d.side=16", "--config.monitor.fit_views=10",
        "--config.monitor.test_views=2", "--config.monitor.neighbours=5",
        "--config.monitor.contexts=1", "--config.eval.fit_records=10",
        "--config.eval.test_records=4", "--config.eval.images=6",
    )  # fmt: skip


def train_and_evaluate(tmp_path, *arguments):
    workdir = tmp_path / "run"
    assert run(*TRAINING, *arguments, f"--workdir={workdir}") == 0
    report = json.loads((workdir / "eval" / "2" / "report.json").read_text())
    assert set(report["adaptivity"]) == {"rotation", "blur"}
    assert set(report["r2"]["blur"]) == {"rotation", "blur"}
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["loss"]) for line in lines if "loss" in line)
