"""train.init_from: runs that start from the weights of others."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from running import finish
from safetensors.numpy import save_file
from test_convert import convert, official_tensors
from tiny import run

from contextssl_jax.run.checkpoint import load_checkpoint
from contextssl_jax.weights.names import flatten_tree

QUICK = ("--config=configs/debug.py", "--config.train.steps=2", "--config.train.warmup_steps=1",
         "--config.monitor.every=0", "--config.checkpoint.every=1", "--config.log.every=1",
         "--config.log.tensorboard=False")  # fmt: skip
ONE_DEVICE = "--config.train.parallel=jit"
RESNET = ("--config.model.encoder=resnet18", "--config.model.resnet.width=4",
          "--config.model.resnet.stem=imagenet", "--config.synthetic.side=32")  # fmt: skip


def weights(workdir: Path, step: int) -> dict[str, np.ndarray]:
    return dict(flatten_tree(load_checkpoint(epath.Path(workdir), None, step)[1]))


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
    assert convert("--to=safetensors", source, f"--out={folder}") == 0
    return folder


@pytest.mark.parametrize("parallel", ["jit", "pmap", "shard_map"])
def test_all_weights_of_a_workdir(parallel, source, tmp_path):
    """On one device and on four."""
    start = f"--config.train.init_from={source}", "--config.seed=1"
    workdir = f"--workdir={tmp_path}"
    assert run(*QUICK, f"--config.train.parallel={parallel}", *start, workdir) == 0
    assert_equal(weights(tmp_path, 1), weights(source, 2))
    ((recorded,),) = ([s["initial_weights"] for s in starts(tmp_path)],)
    assert recorded["from"] == str(source) and recorded["step"] == 2
    assert recorded["part"] == "all" and len(recorded["sha256"]) == 12


def test_all_weights_in_two_processes(source, tmp_path):
    options = (*QUICK[1:], f"--config.train.init_from={source}", "--config.seed=1")
    log = finish(tmp_path, *options, processes=2)
    assert "initial weights" in log
    assert_equal(weights(tmp_path, 1), weights(source, 2))


def test_a_resumed_run_has_its_own_weights(source, tmp_path):
    """The source is not even read, and the metadata do not name it again."""
    shutil.copytree(source, tmp_path / "source")
    start = f"--config.train.init_from={tmp_path / 'source'}", "--config.seed=1", ONE_DEVICE
    workdir = tmp_path / "run"
    assert run(*QUICK, *start, f"--workdir={workdir}") == 0
    expected = weights(workdir, 2)
    shutil.rmtree(tmp_path / "source")
    shutil.rmtree(workdir / "checkpoints" / "2")
    assert run(*QUICK, *start, f"--workdir={workdir}") == 0
    assert_equal(weights(workdir, 2), expected)
    assert ["initial_weights" in one for one in starts(workdir)] == [True, False]


@pytest.mark.parametrize("name", ["", "model.safetensors"])
def test_all_weights_of_a_saved_model(name, source, model, tmp_path):
    start = f"--config.train.init_from={model / name}", "--config.seed=1", ONE_DEVICE
    assert run(*QUICK, *start, f"--workdir={tmp_path}") == 0
    assert_equal(weights(tmp_path, 1), weights(source, 2))


@pytest.mark.parametrize("kind", ["workdir", "model"])
def test_the_encoder_alone(kind, source, model, tmp_path):
    """Into another method; the other parts are initial."""
    path = source if kind == "workdir" else model
    other = ("--config.method=simclr", "--config.model.projector.widths=(8,6)", ONE_DEVICE)
    start = f"--config.train.init_from={path}", "--config.train.init_part=encoder"
    assert run(*QUICK, *other, *start, f"--workdir={tmp_path / 'run'}") == 0
    found, expected = weights(tmp_path / "run", 1), weights(source, 2)
    encoder = {name for name in found if name.startswith("params.encoder.")}
    assert encoder == {name for name in expected if name.startswith("params.encoder.")}
    for name in encoder:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert any(name.startswith("params.projector.") for name in found)


def test_the_encoder_of_official_weights(tmp_path):
    """Parameters and running statistics; into a model of other groups."""
    official = official_tensors()
    save_file(official, tmp_path / "official.safetensors")
    start = (f"--config.train.init_from={tmp_path / 'official.safetensors'}",
             "--config.train.init_part=encoder", ONE_DEVICE)  # fmt: skip
    assert run(*QUICK, *RESNET, *start, f"--workdir={tmp_path / 'run'}") == 0
    found = weights(tmp_path / "run", 1)
    kernel = official["enc.layer2.0.conv1.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(found["params.encoder.layer2_0.conv1.kernel"], kernel)
    # Two updates of the running mean, with a weight of 0.1 each, keep most of it.
    mean, before = found["batch_stats.encoder.bn1.mean"], official["enc.bn1.running_mean"]
    assert np.corrcoef(mean, before)[0, 1] > 0.5


@pytest.mark.parametrize(
    "options, message",
    [
        (("--config.train.init_part=head",), "init_part: 'head' is neither 'all' nor 'encoder'"),
        (("--config.train.init_from=NO",), "NO has an unknown suffix"),
        (("--config.train.init_from=no.safetensors",), "cannot read no.safetensors"),
        (("--config.train.init_from=EMPTY",), "has no checkpoint"),
        (("--config.train.init_from=SOURCE", "--config.model.transformer.width=16"),
         "(wrong shape: params.transformer.layers_0.down.bias ([32], not [16])"),
        (("--config.train.init_from=SOURCE", "--config.model.transformer.blocks=1"),
         "(unexpected: params.transformer.layers_1."),
        (("--config.train.init_from=SOURCE", "--config.model.transformer.blocks=3"),
         "(missing: params.transformer.layers_2."),
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
