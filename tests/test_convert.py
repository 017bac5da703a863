"""Conversion without PyTorch: official weights as safetensors, saved models, one-line errors."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import miniature3d
import numpy as np
import pytest
from etils import epath
from safetensors.numpy import load_file, save_file
from tiny import run

from configs import debug
from contextssl_jax.config import parse_command_line
from contextssl_jax.convert import main
from contextssl_jax.data.inputs import input_statistics
from contextssl_jax.distributed.parallel import Parallel
from contextssl_jax.errors import UserError
from contextssl_jax.experiment import build_experiment
from contextssl_jax.planning.dummy_datasets import dummy_dataset
from contextssl_jax.reports import command
from contextssl_jax.run.checkpoint import Checkpoints, initial_host_data, load_checkpoint
from contextssl_jax.run.trained_model import read_trained_model
from contextssl_jax.run.workdir import check_workdir
from contextssl_jax.weights import files
from contextssl_jax.weights.names import check_tensors, flatten_variables
from contextssl_jax.weights.saved_model import MODEL, read_model, write_model

SMALL = ("--config.model.resnet.width=4", "--config.model.transformer.width=16",
         "--config.model.transformer.blocks=2", "--config.model.transformer.heads=2",
         "--config.model.transformer.outputs=32", "--config.model.predictor.hidden=(8,8)",
         "--config.model.dtype=float32", "--config.data.pairs=4",
         "--config.bench3d.side=16")  # fmt: skip


def convert(*arguments: object) -> int:
    return main(["convert", *map(str, arguments)])


def official_tensors() -> dict[str, np.ndarray]:
    """Return random tensors under the official names, for SMALL."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, inputs: int, outputs: int) -> None:
        shapes.update({f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)})

    def norm(name: str, n: int) -> None:
        shapes.update({f"{name}.weight": (n,), f"{name}.bias": (n,)})

    def conv(name: str, norm_name: str, inputs: int, outputs: int, size: int) -> None:
        shapes[f"enc.{name}.weight"] = (outputs, inputs, size, size)
        norm(f"enc.{norm_name}", outputs)
        shapes.update({f"enc.{norm_name}.running_{m}": (outputs,) for m in ("mean", "var")})

    conv("conv1", "bn1", 3, 4, 7)
    for stage, outputs in enumerate((4, 8, 16, 32), start=1):
        inputs = outputs // 2 if stage > 1 else outputs
        for i, n in enumerate((inputs, outputs)):
            name = f"layer{stage}.{i}"
            conv(f"{name}.conv1", f"{name}.bn1", n, outputs, 3)
            conv(f"{name}.conv2", f"{name}.bn2", outputs, outputs, 3)
        if stage > 1:
            name = f"layer{stage}.0.downsample"
            conv(f"{name}.0", f"{name}.1", inputs, outputs, 1)
    linear("predictor._read_in", 32 + 6, 16)
    linear("predictor._read_out", 16, 32)
    norm("predictor.transformer.ln_f", 16)
    for i in range(2):
        name = f"predictor.transformer.h.{i}"
        norm(f"{name}.ln_1", 16)
        norm(f"{name}.ln_2", 16)
        linear(f"{name}.attn.c_attn", 16, 48)
        linear(f"{name}.attn.c_proj", 16, 16)
        linear(f"{name}.mlp.c_fc", 16, 64)
        linear(f"{name}.mlp.c_proj", 64, 16)
    for name, inputs, outputs in (("0", 32, 8), ("2", 8, 8), ("4", 8, 6)):
        linear(f"aug_predictor.{name}", inputs, outputs)
    return {
        # Running variances, and here all vectors, are positive.
        name: (rng.uniform(0.5, 1.5, shape) if len(shape) == 1 else rng.normal(0, 0.2, shape))
        .astype(np.float32)
        for name, shape in shapes.items()
    }  # fmt: skip


@pytest.fixture(scope="module")
def official(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("official") / "official.safetensors"
    unused = {"equiv_linear.weight": np.zeros((6, 32), np.float32),
              "enc.bn1.num_batches_tracked": np.array(7)}  # fmt: skip
    save_file(official_tensors() | unused, file)
    return file


@pytest.fixture(scope="module")
def workdir(official, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("workdir") / "run"
    assert convert("official", official, f"--out={folder}", *SMALL) == 0
    return folder


def test_a_workdir_records_its_source(workdir, official):
    assert json.loads((workdir / "config.json").read_text())["model"]["resnet"]["width"] == 4
    (start,) = (json.loads(line) for line in (workdir / "starts.jsonl").read_text().splitlines())
    assert start["converted_from"] == str(official)
    assert start["command"][2:5] == ["contextssl_jax.convert", "official", str(official)]


def test_there_and_back_is_bit_equal(workdir, tmp_path):
    assert convert("--to=official", workdir, f"--out={tmp_path / 'back.safetensors'}") == 0
    back = load_file(tmp_path / "back.safetensors")
    for name, tensor in official_tensors().items():
        np.testing.assert_array_equal(back.pop(name), tensor, err_msg=name)
    unused = ("equiv_linear.", "rel_aug_predictor.")
    assert all(n.startswith(unused) or n.endswith("num_batches_tracked") for n in back)
    assert not any(tensor.any() for tensor in back.values())


def test_half_precision_is_read_exactly(tmp_path, official):
    half = {name: t.astype(jnp.bfloat16) for name, t in official_tensors().items()}
    save_file(half, tmp_path / "half.safetensors")
    out = tmp_path / "run"
    assert convert("official", tmp_path / "half.safetensors", f"--out={out}", *SMALL) == 0
    variables = load_checkpoint(epath.Path(out), None, None).state
    found = variables["params"]["predictor"]["Dense_2"]["bias"]
    np.testing.assert_array_equal(found, half["aug_predictor.4.bias"].astype(np.float32))


CONFIG = "--config=configs/3diebench_rotation_color.py"


def test_evaluation_gets_the_converted_variables(workdir, tmp_path, monkeypatch):
    data = miniature3d.prepared(tmp_path / "data", 16)
    evaluated = []

    def build(config: object, experiment: object) -> Callable:
        return lambda variables, step, *_: evaluated.append((step, variables))

    monkeypatch.setattr(command, "build_evaluation", build)
    monkeypatch.setattr(command, "write_report", lambda *arguments: None)
    path = f"--config.bench3d.path={data.out}"
    assert run(CONFIG, *SMALL, path, "--mode=eval", f"--workdir={workdir}") == 0
    ((step, variables),) = evaluated
    assert step == 0
    found = flatten_variables(variables)
    expected = official_tensors()
    transformer = "predictor.transformer.h.1"
    for ours, official, axes in (
        ("encoder.layer3_0.conv2.kernel", "enc.layer3.0.conv2.weight", (2, 3, 1, 0)),
        ("transformer.layers_1.down.kernel", f"{transformer}.mlp.c_proj.weight", (1, 0)),
        ("predictor.Dense_1.bias", "aug_predictor.2.bias", (0,)),
    ):
        np.testing.assert_array_equal(
            found[f"params.{ours}"], expected[official].transpose(axes), err_msg=ours
        )
    np.testing.assert_array_equal(
        found["batch_stats.encoder.layer4_1.bn2.var"], expected["enc.layer4.1.bn2.running_var"]
    )


def test_training_resumes_from_the_converted_state(workdir):
    config = parse_command_line(["convert", CONFIG, *SMALL], ("train",)).config
    parallel = Parallel("jit", (jax.local_devices()[0],))
    experiment = build_experiment(config, dummy_dataset(config), parallel)
    template = experiment.template()
    assert check_workdir(str(workdir), config) == {}
    with Checkpoints(epath.Path(workdir), keep=1) as checkpoints:
        restored = checkpoints.restore(template)
    assert restored is not None and restored.step == restored.state.step == 0
    assert restored.host == initial_host_data(input_statistics(experiment.dataset).to_json())
    assert not any(leaf.any() for leaf in jax.tree.leaves(restored.state.opt_state))


def test_a_saved_model_rebuilds_without_its_workdir(workdir, tmp_path):
    write_model(epath.Path(tmp_path), read_trained_model(epath.Path(workdir), None, ""), "")
    assert {path.name for path in tmp_path.iterdir()} == {MODEL, "config.json"}
    (tmp_path / "config.json").unlink()  # the file is complete
    for path in (tmp_path, tmp_path / MODEL):
        model = read_model(epath.Path(path), "--model")
        assert model.step == 0 and model.config == json.loads((workdir / "config.json").read_text())
        variables = load_checkpoint(epath.Path(workdir), None, None).state
        expected = flatten_variables(variables)
        assert model.variables.keys() == expected.keys()
        for name, tensor in model.variables.items():
            np.testing.assert_array_equal(tensor, expected[name])
        assert {name: value.size for name, value in model.statistics.items()} == {
            "image_size": 1, "classes": 1, "scenes": 1, "pixel_mean": 3, "pixel_std": 3,
            "param_mean": 6, "param_std": 6, "action_mean": 6, "action_std": 6,
        }  # fmt: skip


def damage(tensors: dict[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    if kind == "missing":
        return {n: t for n, t in tensors.items() if ".attn." not in n}
    if kind == "unexpected":
        return tensors | {"enc.fc.weight": np.zeros((5, 32), np.float32)}
    if kind == "shape":
        return tensors | {"predictor._read_in.weight": np.zeros((16, 34), np.float32)}
    return tensors | {"enc.bn1.bias": np.zeros(4)}


@pytest.mark.parametrize(
    "kind, message",
    [
        ("missing", "(missing: predictor.transformer.h.0.attn.c_attn.weight, predictor.transformer"
         ".h.0.attn.c_attn.bias, predictor.transformer.h.0.attn.c_proj.weight and 5 more)"),
        ("unexpected", "(unexpected: enc.fc.weight)"),
        ("shape", "(wrong shape: predictor._read_in.weight ([16, 34], not [16, 38]))"),
        ("type", "(wrong type: enc.bn1.bias (float64, not float32))"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_one_line(kind, message, tmp_path, capsys):
    file = tmp_path / "official.safetensors"
    save_file(damage(official_tensors(), kind), file)
    assert convert("official", file, f"--out={tmp_path / 'run'}", *SMALL) == 2
    error = capsys.readouterr().err
    assert error == (
        f"error: FILE: {file} does not fit the model {message}. Choose the --config whose model it"
        " is, or a different file.\n"
    )
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_no_checkpoint_is_one_line(tmp_path, official, capsys):
    arguments = f"--out={tmp_path / 'run'}", *SMALL
    file = tmp_path / "file.safetensors"
    for content in (b"", b"not weights", official.read_bytes()[:-9]):
        file.write_bytes(content)
        assert convert("official", file, *arguments) == 2
        error = capsys.readouterr().err
        assert f"FILE: {file} is not a safetensors file, or is damaged (" in error
        assert error.count("\n") == 1 and not (tmp_path / "run").exists()
    save_file({"x": np.zeros(3, bool)}, file)
    assert convert("official", file, *arguments) == 2
    assert "has tensors of type BOOL, which are not weights" in capsys.readouterr().err


def test_missing_torch_is_one_line(tmp_path, official, workdir, capsys, monkeypatch):
    monkeypatch.setattr(files, "is_installed", lambda module: False)
    for arguments in (
        ("official", "official.pt", f"--out={tmp_path / 'run'}"),
        ("--to=official", workdir, f"--out={tmp_path / 'back.pt'}"),
    ):
        assert convert(*arguments) == 2
        error = capsys.readouterr().err
        assert "requires PyTorch, which is not installed. Run: pip install" in error
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("official",), "official FILE: missing"),
        (("other", "FILE"), "official FILE: missing"),
        (("official", "no.safetensors"), "cannot read no.safetensors (No such file"),
        (("official", "no.bin"), "no.bin has an unknown suffix"),
        (("official", "FILE", "--step=3"), "--step: only valid with --to"),
        (("official", "FILE", "--confg=3"), "--confg=3: unknown argument"),
        (("official", "FILE", "--config=no.py"), "--config: cannot read 'no.py'"),
        (("official", "FILE", "--config.model.transformer.blocs=3"), "Did you mean"),
        (("official", "FILE", "--config.model.encoder=patch"), "not of contextssl with patch"),
        (("official", "FILE", "--config.method=simclr"), "not of simclr with resnet18"),
        (("--to=official", "no-run"), "no-run has no config.json"),
        (("--to=official", "one", "two"), "expected one workdir, not 2"),
        (("--to=official", "RUN", "--step=3"), "has no checkpoint 3. Choose one of 0."),
        (("--to=official", "RUN", "--config.seed=3"), "--config: only valid without --to"),
        (("--to=torch", "RUN"), "invalid choice: 'torch'"),
    ],
)
def test_a_wrong_argument_is_one_line(arguments, message, tmp_path, workdir, official, capsys):
    files = {"RUN": workdir, "FILE": official}
    out = tmp_path / "out.safetensors"
    assert convert(*(files.get(a, a) for a in arguments), f"--out={out}") == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not out.exists()


def test_existing_files_stay(workdir, official, capsys):
    before = sorted(workdir.rglob("*"))
    assert convert("official", official, f"--out={workdir}", *SMALL) == 2
    assert f"--out: {workdir} is not empty. Choose a new folder." in capsys.readouterr().err
    assert sorted(workdir.rglob("*")) == before


def test_a_model_that_the_official_code_does_not_have_is_one_line(tmp_path, capsys):
    config = debug.get_config()
    (tmp_path / "config.json").write_text(config.to_json_best_effort())
    assert convert("--to=official", tmp_path, f"--out={tmp_path / 'x.safetensors'}") == 2
    assert "not of contextssl with patch. Use a config with the method" in capsys.readouterr().err
    (tmp_path / "config.json").write_text("[1]")
    assert convert("--to=official", tmp_path, f"--out={tmp_path / 'x.safetensors'}") == 2
    assert "config.json (" in capsys.readouterr().err


def test_long_lists_are_shortened():
    expected = {f"tensor_{i}": (1,) for i in range(9)}
    with pytest.raises(UserError, match="tensor_2 and 6 more"):
        check_tensors({}, expected, "FILE", "Choose another")
