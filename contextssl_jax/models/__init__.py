"""Encoders by name; a new one is one file and one line here.

A builder takes the section `model` and the axis name of synchronized statistics.
"""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from contextssl_jax.models.patch import PatchEncoder
from contextssl_jax.models.resnet import BasicBlock, BottleneckBlock, ResNet


def _resnet(stages: tuple[int, ...], block: type[BasicBlock] | type[BottleneckBlock]) -> Callable:
    def build(model: ConfigDict, axis: str | None) -> ResNet:
        options = dict(axis=axis, dtype=jnp.dtype(model.dtype), remat=model.remat)
        options["packed"] = model.resnet.pack == "always"  # experiment.py resolves "auto"
        return ResNet(stages, block, model.resnet.stem, model.resnet.width, **options)

    return build


def _patch(model: ConfigDict, axis: str | None) -> PatchEncoder:
    del axis  # it has no batch statistics
    p = model.patch
    options = dict(dtype=jnp.dtype(model.dtype), remat=model.remat)
    return PatchEncoder(p.size, tuple(p.widths), p.blocks, p.features, **options)


ENCODERS: dict[str, Callable[[ConfigDict, str | None], nn.Module]] = {
    "resnet18": _resnet((2, 2, 2, 2), BasicBlock),
    "resnet34": _resnet((3, 4, 6, 3), BasicBlock),
    "resnet50": _resnet((3, 4, 6, 3), BottleneckBlock),
    "patch": _patch,
}
