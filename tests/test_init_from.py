"""train.init_from: runs that start from the weights of others."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath
from running import finish
from safetensors.numpy import save_file
from test_convert import official_tensors
from tiny import run

from configs import debug
from contextssl_jax.distributed.parallel import Parallel
from contextssl_jax.experiment import build_experiment
from contextssl_jax.run.checkpoint import load_checkpoint
from contextssl_jax.run.initial_weights import load_initial_weights
from contextssl_jax.run.trained_model import read_trained_model
from contextssl_jax.weights.names import flatten_variables
from contextssl_jax.weights.saved_model import write_model

QUICK = ("--config=configs/debug.py", "--config.train.steps=2", "--config.train.warmup_steps=1",
         "--config.monitor.every=0", "--config.checkpoint.every=1", "--config.log.every=1",
         "--config.log.tensorboard=False", "--config.model.transformer.blocks=1")  # fmt: skip
ONE_DEVICE = "--config.train.parallel=jit"


def weights(workdir: Path, step: int) -> dict[str, np.ndarray]:
    return flatten_variables(load_checkpoint(epath.Path(workdir), None, step).state)


def starts(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "starts.jsonl").read_text().splitlines()]


def assert_equal(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A run with the checkpoint 2. The weights at step 1 are initial: the first rate is 0."""
    workdir = tmp_path_factory.mktemp("source") / "run"
    assert run(*QUICK, ONE_DEVICE, f"--workdir={workdir}") == 0
    return workdir


@pytest.fixture(scope="module")
def model(source, tmp_path_factory) -> Path:
    """The same weights as model.safetensors and config.json."""
    folder = tmp_path_factory.mktemp("model")
    write_model(epath.Path(folder), read_trained_model(epath.Path(source), None, ""), "")
    return folder


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_a_run_starts_from_all_weights(parallel, source, tmp_path):
    """On one device and on four."""
    start = f"--config.train.init_from={source}", f"--config.train.parallel={parallel}"
    assert run(*QUICK, *start, f"--workdir={tmp_path}") == 0
    assert_equal(weights(tmp_path, 1), weights(source, 2))
    (recorded,) = (one["initial_weights"] for one in starts(tmp_path))
    assert recorded["from"] == str(source) and recorded["step"] == 2
    assert recorded["part"] == "all" and len(recorded["sha256"]) == 12


def test_a_run_of_two_processes_starts_from_all_weights(source, tmp_path):
    options = (*QUICK[1:], f"--config.train.init_from={source}")
    assert "initial weights" in finish(tmp_path, *options, processes=2)
    assert_equal(weights(tmp_path, 1), weights(source, 2))


def test_a_resumed_run_has_its_own_weights(source, tmp_path):
    """The source is not even read, and the metadata do not name it again."""
    shutil.copytree(source, tmp_path / "source")
    start = f"--config.train.init_from={tmp_path / 'source'}", ONE_DEVICE
    workdir = tmp_path / "run"
    assert run(*QUICK, *start, f"--workdir={workdir}") == 0
    expected = weights(workdir, 2)
    shutil.rmtree(tmp_path / "source")
    shutil.rmtree(workdir / "checkpoints" / "2")
    assert run(*QUICK, *start, f"--workdir={workdir}") == 0
    assert_equal(weights(workdir, 2), expected)
    assert ["initial_weights" in one for one in starts(workdir)] == [True, False]


def started(path: Path, part: str, **options: object) -> tuple[dict, dict]:
    """Return zeros in the place of initial weights, and these after the replacement."""
    config = debug.get_config()
    config.model.transformer.blocks = 1
    config.train.update(init_from=str(path), init_part=part)
    config.update_from_flattened_dict(options)
    experiment = build_experiment(config, parallel=Parallel("jit", (jax.local_devices()[0],)))
    initial = load_initial_weights(config, experiment.template().variables)
    template = experiment.template()
    zeros = jax.tree.map(np.zeros_like, template)
    state = initial.replace(zeros)
    assert jax.tree.structure(state) == jax.tree.structure(template)
    assert initial.tensors == {}
    return flatten_variables(zeros.variables), flatten_variables(state.variables)


@pytest.mark.parametrize("name", ["", "model.safetensors"])
def test_all_weights_of_a_saved_model(name, source, model):
    assert_equal(started(model / name, "all")[1], weights(source, 2))


@pytest.mark.parametrize("kind", ["workdir", "model"])
def test_the_encoder_alone_in_another_method(kind, source, model):
    path = source if kind == "workdir" else model
    before, after = started(path, "encoder", method="simclr")
    expected = weights(source, 2)
    for name, tensor in after.items():
        chosen = expected if name.startswith("params.encoder.") else before
        np.testing.assert_array_equal(tensor, chosen[name], err_msg=name)
    assert any(name.startswith("params.projector.") for name in after)


def test_the_encoder_of_official_weights(tmp_path):
    """Parameters and running statistics, in a model of other groups."""
    official = official_tensors()
    save_file(official, tmp_path / "official.safetensors")
    resnet = {"model.encoder": "resnet18", "model.resnet.width": 4,
              "model.resnet.stem": "imagenet"}  # fmt: skip
    before, after = started(tmp_path / "official.safetensors", "encoder", **resnet)
    kernel = official["enc.layer2.0.conv1.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(after["params.encoder.layer2_0.conv1.kernel"], kernel)
    mean = official["enc.layer4.1.bn2.running_mean"]
    np.testing.assert_array_equal(after["batch_stats.encoder.layer4_1.bn2.mean"], mean)
    name = "params.transformer.read_in.kernel"
    np.testing.assert_array_equal(after[name], before[name])


@pytest.mark.parametrize(
    "options, message",
    [
        (("--config.train.init_part=head",), "must be one of 'all', 'encoder', not 'head'"),
        (("--config.train.init_from=NO",), "NO has an unknown suffix"),
        (("--config.train.init_from=no.safetensors",), "cannot read no.safetensors"),
        (("--config.train.init_from=EMPTY",), "has no checkpoint"),
        (("--config.train.init_from=SOURCE", "--config.model.transformer.width=16"),
         "(wrong shape: params.transformer.layers_0.down.bias ([32], not [16])"),
        (("--config.train.init_from=SOURCE", "--config.method=simclr_plus"),
         "(unexpected: params.predictor."),
        (("--config.train.init_from=SOURCE", "--config.model.transformer.blocks=2"),
         "(missing: params.transformer.layers_1."),
        (("--config.train.init_from=MODEL", "--config.method=simclr"),
         "(missing: params.projector."),
        (("--config.train.init_from=SOURCE", "--config.model.patch.features=16",
          "--config.train.init_part=encoder"), "(wrong shape: params.encoder."),
        (("--config.train.init_from=FOREIGN",), "not of contextssl with patch"),
    ],
)  # fmt: skip
def test_a_wrong_source_is_one_line(options, message, source, model, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    save_file({"x": np.zeros(3)}, tmp_path / "x.safetensors")
    places = {"SOURCE": source, "MODEL": model, "EMPTY": tmp_path / "empty",
              "FOREIGN": tmp_path / "x.safetensors"}  # fmt: skip
    arguments = []
    for option in options:
        name, _, value = option.partition("=")
        arguments.append(f"{name}={places.get(value, value)}")
    assert run(*QUICK, ONE_DEVICE, *arguments, f"--workdir={tmp_path / 'run'}") == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: --config.train.init_"), error
    assert error.count("\n") == 1 and not (tmp_path / "run").exists()
