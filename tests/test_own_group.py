"""A group that a config file defines: it trains, resumes and is evaluated like any other."""

import json
import runpy
import shutil
from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY, run

from contextssl_jax.data import DATASETS
from contextssl_jax.transforms import GROUPS

PATH = "configs/own_group.py"
QUICK = (f"--config={PATH}", *(option for option in TINY if "eval.environments" not in option),
         "--config.data.name=synthetic", "--config.synthetic.train=40",
         "--config.synthetic.test=20", "--config.monitor.every=0", "--config.eval.every=0",
         "--config.eval.environments=('crop','gamma')", "--config.train.steps=4",
         "--config.checkpoint.every=2")  # fmt: skip


@pytest.fixture(autouse=True)
def fresh():
    """Forgets the group after each test."""
    with mock.patch.dict(GROUPS):
        yield


def losses(workdir) -> list[float]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_the_group_trains_resumes_and_is_evaluated(tmp_path):
    assert run(*QUICK, f"--workdir={tmp_path}") == 0
    whole = losses(tmp_path)
    assert len(whole) == 4 and np.isfinite(whole).all()
    shutil.rmtree(tmp_path / "checkpoints" / "4")
    GROUPS.pop("gamma")  # as in another process
    assert run(*QUICK, f"--workdir={tmp_path}") == 0
    assert losses(tmp_path) == whole
    GROUPS.pop("gamma")
    assert run(*QUICK, "--mode=eval", f"--workdir={tmp_path}") == 0
    report = json.loads((tmp_path / "eval" / "4" / "report.json").read_text())
    assert set(report["r2"]["gamma"]) == set(report["adaptivity"]) == {"crop", "gamma"}
    assert set(report["accuracy_features"]) == {"linear", "knn"}


def test_gamma_renders_powers_and_leaves_its_identity_untouched():
    scope = runpy.run_path(PATH)
    config = scope["get_config"]()
    config.data.name = "synthetic"
    dataset = DATASETS["synthetic"].build(config)
    images = dataset.splits["train"].images[:3]
    still = np.tile(dataset.space.identity, (3, 1))
    np.testing.assert_allclose(
        dataset.pixels(dataset.render(images, still)), images / 255, atol=1e-6
    )
    gamma = scope["gamma"](16, **config.gamma)
    transform_params = gamma.sample(np.random.default_rng(0), 1000)
    assert transform_params.shape == (1000, 1) and transform_params.dtype == np.float32
    assert 0.6 < transform_params.max() < 0.7 and -0.7 < transform_params.min() < -0.6
    rendered = gamma.render(images / np.float32(255), jnp.log(jnp.array([[0.5], [1], [2]])))
    expected = [np.sqrt(images[0] / 255), images[1] / 255, (images[2] / 255) ** 2]
    np.testing.assert_allclose(rendered, expected, atol=1e-5)
    assert np.isfinite(gamma.render(jnp.full((1, 1, 1, 3), -1e-7), transform_params[:1])).all()
