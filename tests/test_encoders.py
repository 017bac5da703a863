"""Encoders: torchvision's ResNet-18 to the padding, running statistics, the patch encoder."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import choose_platform

from configs import base
from contextssl_jax.models import ENCODERS
from contextssl_jax.models.convolution import convolve
from contextssl_jax.models.patch import PatchEncoder
from contextssl_jax.models.pooling import max_pool
from contextssl_jax.models.resnet import BasicBlock, ResNet

KEY = jax.random.key(0)


def torch_names(stages: tuple[int, ...]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Torch's name of each tensor: our collection and path."""
    names = {"conv1.weight": ("params", ("conv1", "kernel"))}

    def norm(torch: str, ours: tuple[str, ...]) -> None:
        for entry, (collection, leaf) in {
            "weight": ("params", "scale"),
            "bias": ("params", "bias"),
            "running_mean": ("batch_stats", "mean"),
            "running_var": ("batch_stats", "var"),
        }.items():
            names[f"{torch}.{entry}"] = (collection, (*ours, leaf))

    norm("bn1", ("bn1",))
    for stage, blocks in enumerate(stages, start=1):
        for i in range(blocks):
            torch, ours = f"layer{stage}.{i}", f"layer{stage}_{i}"
            for j in (1, 2):
                names[f"{torch}.conv{j}.weight"] = ("params", (ours, f"conv{j}", "kernel"))
                norm(f"{torch}.bn{j}", (ours, f"bn{j}"))
            if stage > 1 and not i:
                names[f"{torch}.downsample.0.weight"] = ("params", (ours, "shortcut", "kernel"))
                norm(f"{torch}.downsample.1", (ours, "shortcut_bn"))
    return names


def recorded_weights(variables: dict, seed: int) -> dict:
    """The weights of the recording: drawn for each torch name in sorted order, ours in place."""
    rng = np.random.default_rng(seed)
    names = torch_names((2, 2, 2, 2)) | {"fc.weight": None, "fc.bias": None}
    new = jax.tree.map(np.array, variables)
    for name in sorted(names):
        if name.startswith("fc."):  # the classifier, which the encoder lacks, was drawn too
            continue
        collection, (*path, last) = names[name]
        node = new[collection]
        for part in path:
            node = node[part]
        shape = node[last].shape
        if len(shape) == 4:
            h, w, i, o = shape
            value = rng.normal(0, (2 / (o * h * w)) ** 0.5, (o, i, h, w)).transpose(2, 3, 1, 0)
        elif name.endswith(("running_var", "weight")):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = rng.normal(0, 0.1, shape)
        node[last] = value.astype(np.float32)
    return new


def train(model, variables: dict, images: jax.Array):
    """Return features in training mode, and the updated statistics."""
    apply = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    return jax.jit(apply)(variables, images)


def test_resnet18_is_torchvisions(recorded):
    record = recorded("resnet")
    model = ResNet((2, 2, 2, 2), BasicBlock, stem="imagenet")
    images = record["encoder_images_nchw"].transpose(0, 2, 3, 1)
    variables = jax.jit(model.init)(KEY, images)
    variables = recorded_weights(variables, int(record["encoder_weight_seed"]))
    features = jax.jit(model.apply)(variables, images)
    scale = np.abs(record["encoder_features"]).max()
    np.testing.assert_allclose(features / scale, record["encoder_features"] / scale, atol=1e-5)


def test_running_statistics_move_by_a_tenth():
    model = ResNet((1,), BasicBlock, width=4)
    images = 3 + jax.random.normal(KEY, (8, 8, 8, 3))
    variables = jax.jit(model.init)(KEY, images)
    _, updated = train(model, variables, images)
    kernel = variables["params"]["conv1"]["kernel"]
    y = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    mean, var = y.mean(axis=(0, 1, 2)), y.var(axis=(0, 1, 2))
    stats = updated["batch_stats"]["bn1"]
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * var * 512 / 511, rtol=1e-4)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
@pytest.mark.parametrize("channels", [(5, 4), (3, 16), (3, 24)])
@pytest.mark.parametrize("size, stride", [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2), (5, 4), (3, 3)])
def test_convolution_and_its_gradients_are_xlas(size, stride, channels, platform, monkeypatch):
    choose_platform(monkeypatch, platform)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 12, 12, channels[0])).astype(np.float32)
    kernel = rng.normal(size=(size, size, *channels)).astype(np.float32)

    def plain(x, kernel):
        pad = ((size // 2, size // 2),) * 2
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), pad, dimension_numbers=layout
        )

    ours, pull = jax.vjp(lambda *args: convolve(*args, stride), x, kernel)
    expected, pull_expected = jax.vjp(plain, x, kernel)
    g = rng.normal(size=ours.shape).astype(np.float32)
    for a, b in zip((ours, *pull(g)), (expected, *pull_expected(g)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_max_pool_and_its_gradient_are_xlas(platform, monkeypatch):
    choose_platform(monkeypatch, platform)
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, (3, 8, 12, 5)).astype(np.float32)  # windows have several maxima
    ours, pull = jax.vjp(max_pool, x)
    pad = ((1, 1), (1, 1))
    expected, pull_expected = jax.vjp(lambda x: nn.max_pool(x, (3, 3), (2, 2), padding=pad), x)
    np.testing.assert_array_equal(ours, expected)
    g = rng.normal(size=ours.shape).astype(np.float32)
    np.testing.assert_allclose(*pull(g), *pull_expected(g), atol=1e-5)


def test_convolution_of_chunks_and_of_sizes_that_the_stride_does_not_divide(monkeypatch):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 2, 4)).astype(np.float32)

    def gradient(x, stride):
        return jax.grad(lambda w: jnp.sum(convolve(x, w, stride) ** 2))(kernel)

    x = rng.normal(size=(12, 8, 8, 2)).astype(np.float32)
    whole = gradient(x, 1)
    monkeypatch.setattr("contextssl_jax.models.convolution._CHUNK_BYTES", 3 * x[0].nbytes * 5)
    np.testing.assert_allclose(gradient(x, 1), whole, rtol=1e-4)
    assert convolve(x[:, :7, :7], kernel, 2).shape == (12, 4, 4, 4)
    assert np.isfinite(gradient(x[:, :7, :7], 2)).all()


@pytest.mark.parametrize(
    "name, parameters",
    [("resnet18", 11_168_832), ("resnet34", 21_276_992), ("resnet50", 23_500_352)],
)
def test_resnets_have_the_published_size(name, parameters):
    # torchvision's count without the classifier, with a 3x3 stem in place of the 7x7 one.
    model = ENCODERS[name](base.get_config().model, None)
    shapes = jax.eval_shape(model.init, KEY, jnp.zeros((1, 32, 32, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == parameters
    features = jax.eval_shape(model.apply, shapes, jnp.zeros((2, 32, 32, 3)))
    assert features.shape == (2, model.features)


def test_patch_encoder_keeps_no_state_and_ignores_the_batch():
    model = PatchEncoder(patch=4, widths=(8, 16), blocks=1, features=32)
    images = jax.random.normal(KEY, (4, 16, 16, 3))
    variables = jax.jit(model.init)(KEY, images)
    assert set(variables) == {"params"}
    z, _ = train(model, variables, images)
    assert z.shape == (4, 32) and z.dtype == jnp.float32
    np.testing.assert_allclose(z[:1], jax.jit(model.apply)(variables, images[:1]), atol=1e-5)


def test_patch_stem_encodes_each_patch_independently():
    model = PatchEncoder(patch=4, widths=(8, 16), blocks=0, features=32)
    images = jax.random.normal(KEY, (1, 16, 16, 3))
    variables = jax.jit(model.init)(KEY, images)
    _, captured = model.apply(variables, images, capture_intermediates=True)
    stem = captured["intermediates"]["Dense_0"]["__call__"][0]
    patch = images[0, 4:8, 8:12].reshape(-1)
    dense = variables["params"]["Dense_0"]
    np.testing.assert_allclose(stem[0, 1, 2], patch @ dense["kernel"] + dense["bias"], atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "patch"])
def test_bfloat16_keeps_parameters_statistics_and_features_float32(name):
    config = base.get_config().model
    config.dtype = "bfloat16"
    config.resnet.width = 4
    model = ENCODERS[name](config, None)
    images = jax.random.normal(KEY, (2, 16, 16, 3))
    variables = jax.jit(model.init)(KEY, images)
    z, updated = train(model, variables, images)
    assert z.dtype == jnp.float32
    leaves = jax.tree.leaves((variables, updated))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
