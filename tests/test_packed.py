"""Packed columns: convolutions, statistics and gradients are those of the plain layers."""

import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import cifar10_crop_blur
from contextssl_jax.distributed.parallel import Parallel
from contextssl_jax.experiment import build_experiment
from contextssl_jax.models.convolution import convolve
from contextssl_jax.models.packed import convolve_packed, pack_columns
from contextssl_jax.models.resnet import BasicBlock, BottleneckBlock, ResNet
from contextssl_jax.planning.dummy_datasets import dummy_dataset

CASES = [(k, s, p) for p in (2, 4) for s in (1, 2, 4) if p % s == 0 for k in (1, 3, 5, 7)]


@pytest.mark.parametrize("size, stride, columns", CASES)
def test_packed_convolution_is_the_plain_one(size, stride, columns):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, 8, 8, 3))
    kernel = jax.random.normal(keys[1], (size, size, 3, 5))
    g = jax.random.normal(keys[2], (2, 8 // stride, 8 // stride, 5))

    def plain(x, kernel):
        return pack_columns(convolve(x, kernel, stride), columns // stride)

    def packed(x, kernel):
        return convolve_packed(pack_columns(x, columns), kernel, stride, columns)

    expected, expected_vjp = jax.vjp(plain, x, kernel)
    found, found_vjp = jax.vjp(packed, x, kernel)
    g = pack_columns(g, columns // stride)
    for one, other in zip((found, *found_vjp(g)), (expected, *expected_vjp(g)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def forward_and_gradients(model, variables, images):
    """Features, new batch statistics and gradients of a training step."""

    def loss(params):
        features, new = model.apply(
            {"params": params, "batch_stats": variables["batch_stats"]},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        weights = jnp.arange(features.shape[1])
        return (jnp.square(features) * weights).sum(), (features, new)

    return jax.jit(jax.grad(loss, has_aux=True))(variables["params"])


def assert_close(found, expected):
    scale = float(jnp.abs(expected).max())
    np.testing.assert_allclose(found, expected, atol=1e-5 * scale)


@pytest.mark.parametrize("remat", [False, True])
def test_packed_stage_is_the_plain_one(remat):
    images = jax.random.normal(jax.random.key(1), (4, 12, 12, 3))
    plain, packed = (
        ResNet((2, 2), BasicBlock, width=8, packed=one, remat=remat) for one in (False, True)
    )
    variables = plain.init(jax.random.key(0), images)
    same = packed.init(jax.random.key(0), images)
    jax.tree.map(np.testing.assert_array_equal, variables, same)
    expected = forward_and_gradients(plain, variables, images)
    jax.tree.map(assert_close, forward_and_gradients(packed, variables, images), expected)
    assert_close(packed.apply(variables, images), plain.apply(variables, images))


def shapes(model, side):
    """The shapes of the results of a model's convolutions."""
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    jaxpr = jax.make_jaxpr(lambda x: model.init(jax.random.key(0), x))(images)
    return re.findall(r":f32\[([\d,]+)\] = conv_general_dilated", str(jaxpr))


def test_packing_applies_where_the_second_stage_unpacks():
    basic = {"stages": (1, 1), "block": BasicBlock, "width": 4}
    packed = shapes(ResNet(**basic, packed=True), 16)
    assert packed[:3] == ["2,16,8,8"] * 3 and packed[3] == "2,8,8,8"
    for side, change in [
        (15, {}),
        (16, {"stem": "imagenet"}),
        (16, {"block": BottleneckBlock}),
        (16, {"stages": (1,)}),
    ]:
        options = basic | change
        assert shapes(ResNet(**options, packed=True), side) == shapes(ResNet(**options), side)


@pytest.mark.parametrize(
    "pack, kind, dtype, width, packed",
    [
        ("auto", "TPU v5 lite", "bfloat16", 64, True),
        ("auto", "TPU v5 lite", "float32", 64, False),
        ("auto", "TPU v5 lite", "bfloat16", 128, False),
        ("auto", "TPU v5", "bfloat16", 64, True),
        ("auto", "cpu", "bfloat16", 64, False),
        ("never", "TPU v5 lite", "bfloat16", 64, False),
        ("always", "cpu", "float32", 8, True),
    ],
)
def test_the_device_decides_whether_the_train_step_packs(pack, kind, dtype, width, packed):
    config = cifar10_crop_blur.get_config()
    config.data.update(contexts=1, pairs=2)
    config.model.update(dtype=dtype)
    config.model.resnet.update(pack=pack, width=width)
    config.model.transformer.update(blocks=1, width=16)
    devices = (SimpleNamespace(device_kind=kind, process_index=0),)
    built = build_experiment(config, dummy_dataset(config), Parallel("jit", devices))
    assert built.method.modules["encoder"].packed == packed
    assert not built.eval_method.modules["encoder"].packed or pack == "always"
