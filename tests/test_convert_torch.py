"""Conversion of official weights at full size, against PyTorch; files that PyTorch writes."""

import argparse
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from safetensors.numpy import load_file

from configs import base
from contextssl_jax.convert import main
from contextssl_jax.losses import normalize
from contextssl_jax.masks import pair_mask
from contextssl_jax.methods.context_head import build_transformer
from contextssl_jax.models import ENCODERS
from contextssl_jax.models.context_transformer import make_tokens
from contextssl_jax.models.predictor import build_predictor
from contextssl_jax.run.checkpoint import load_checkpoint
from contextssl_jax.weights.files import read_tensors

torch = pytest.importorskip("torch", reason="the extra torch is not installed")
official_torch = pytest.importorskip("official_torch")

SMALL = ("--config.model.resnet.width=4", "--config.model.transformer.width=16",
         "--config.model.transformer.blocks=1", "--config.model.transformer.heads=2",
         "--config.model.transformer.outputs=32",
         "--config.model.predictor.hidden=(8,8)")  # fmt: skip
SMALL_SIZES = dict(width=4, transformer=16, blocks=1, heads=2, hidden=8)


def convert(*arguments: object) -> int:
    return main(["convert", *map(str, arguments)])


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> SimpleNamespace:
    """A random official model at full size (168 M parameters), and the workdir converted from it.

    Attributes: model, workdir.
    """
    folder = tmp_path_factory.mktemp("full")
    model = official_torch.random_model(seed=7)
    torch.save(model.state_dict(), folder / "official.pt")
    assert convert("official", folder / "official.pt", f"--out={folder / 'run'}") == 0
    (folder / "official.pt").unlink()
    return SimpleNamespace(model=model, workdir=folder / "run")


def test_full_size_there_and_back_is_bit_equal(full, tmp_path):
    back = tmp_path / "back.safetensors"
    assert convert("--to=official", full.workdir, f"--out={back}") == 0
    tensors = load_file(back)
    state = full.model.state_dict()
    assert tensors.keys() == state.keys()
    for name, tensor in tensors.items():
        if name.startswith(("equiv_linear.", "rel_aug_predictor.")):
            assert tensor.shape == state[name].shape and not tensor.any()
        elif name.endswith("num_batches_tracked"):
            assert tensor == 0
        else:
            np.testing.assert_array_equal(tensor, state[name].numpy(), err_msg=name)


def test_full_size_outputs_are_those_of_torch(full):
    """To 1e-4 of float32: features, embeddings of length 1, and predicted parameters."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(8, 64, 64, 3)).astype(np.float32)
    actions = rng.normal(size=(4, 6)).astype(np.float32)
    nchw = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    expected = [t.numpy() for t in full.model(nchw, torch.from_numpy(actions))]

    model = base.get_config().model
    model.resnet.stem = "imagenet"
    encoder, transformer = ENCODERS["resnet18"](model, None), build_transformer(model)
    predictor = build_predictor(model, 6)

    @jax.jit
    def forward(variables: dict, images: jax.Array, actions: jax.Array) -> tuple:
        params = variables["params"]
        own = {"params": params["encoder"], "batch_stats": variables["batch_stats"]["encoder"]}
        features = encoder.apply(own, images)
        tokens = make_tokens(features.reshape(1, 4, 2, -1), actions[None])
        masks = jnp.asarray(pair_mask(8))[None, None]
        h = normalize(transformer.apply({"params": params["transformer"]}, tokens, masks)[0])
        return features, h, predictor.apply({"params": params["predictor"]}, h)

    variables = load_checkpoint(epath.Path(full.workdir), None, None).state
    for ours, theirs in zip(forward(variables, images, actions), expected, strict=True):
        assert np.abs(theirs).max() > 0.1
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


@pytest.fixture(scope="module")
def small() -> dict:
    return official_torch.random_model(seed=3, **SMALL_SIZES).state_dict()


def parallel_of(state: dict) -> dict:
    return {f"module.{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        parallel_of,
        lambda state: {"state_dict": state, "epoch": 1000},
        lambda state: {"epoch": 1000, "model": parallel_of(state), "optimizer": {"state": {}}},
        lambda state: {name: t.to(torch.bfloat16) for name, t in state.items()},
    ],
    ids=["plain", "parallel", "nested", "nested parallel", "bfloat16"],
)
def test_layouts_of_checkpoints(wrap, small, tmp_path):
    torch.save(wrap(small), tmp_path / "official.pt")
    found = read_tensors(epath.Path(tmp_path / "official.pt"), "FILE").tensors
    assert found.keys() == small.keys()
    for name, tensor in found.items():
        exact = wrap(small).get(name, small[name])
        np.testing.assert_array_equal(tensor, exact.float().numpy(), err_msg=name)


def test_the_official_code_loads_a_converted_workdir(small, tmp_path):
    """Strictly, as its scripts do: every name is there, and no other."""
    torch.save(small, tmp_path / "official.pt")
    workdir, back = tmp_path / "run", tmp_path / "back.pt"
    assert convert("official", tmp_path / "official.pt", f"--out={workdir}", *SMALL) == 0
    assert convert("--to=official", workdir, f"--out={back}") == 0
    model = official_torch.OfficialModel(**SMALL_SIZES)
    model.load_state_dict(torch.load(back, weights_only=True), strict=True)
    name = "predictor.transformer.h.0.mlp.c_fc.weight"
    np.testing.assert_array_equal(model.state_dict()[name].numpy(), small[name].numpy())


class Harmful:
    """Unpickling it calls a function."""

    def __reduce__(self) -> tuple:
        return print, ("this code has run",)


def truncated(state: dict, file: Path) -> None:
    torch.save(state, file)
    file.write_bytes(file.read_bytes()[:-500])


@pytest.mark.parametrize(
    "write, message",
    [
        (lambda state, file: torch.save(state | {"args": argparse.Namespace(lr=1)}, file),
         "contains the object argparse.Namespace, and only tensors are loaded"),
        (lambda state, file: torch.save({"state_dict": state, "x": Harmful()}, file),
         "contains the object print, and only tensors are loaded"),
        (lambda state, file: file.write_bytes(b"<html>Too many downloads</html>"),
         "is not a PyTorch checkpoint, or is damaged"),
        (lambda state, file: file.write_bytes(b""), "is not a PyTorch checkpoint, or is damaged"),
        (truncated, "is not a PyTorch checkpoint, or is damaged"),
        (lambda state, file: torch.save([1, 2], file), "contains no state dict"),
        (lambda state, file: torch.save({"epoch": 3}, file), "contains no state dict"),
        (lambda state, file: torch.save({"enc.conv1.weight": torch.zeros(2).to_sparse()}, file),
         "contains no state dict"),
        (lambda state, file: torch.save({"enc.conv1.weight": torch.zeros(2)}, file),
         "does not fit the model (missing: enc.bn1.weight"),
    ],
    ids=["object", "code", "page", "empty", "truncated", "list", "other", "sparse", "short"],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_one_line(write, message, small, tmp_path, capsys):
    file = tmp_path / "official.pt"
    write(small, file)
    assert convert("official", file, f"--out={tmp_path / 'run'}", *SMALL) == 2
    output = capsys.readouterr()
    assert message in output.err and output.err.count("\n") == 1, output.err
    assert "\x1b" not in output.err and "this code has run" not in output.out
    assert not (tmp_path / "run").exists()
