"""ResNet-18/34/50 (arXiv 1512.03385) with torchvision's arithmetic, down to the padding."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from contextssl_jax.models.batchnorm import MOMENTS, BatchNorm
from contextssl_jax.models.convolution import Conv
from contextssl_jax.models.packed import pack_columns
from contextssl_jax.models.pooling import max_pool

Layer = Callable[..., Any]


@jax.custom_vjp
def _rectify(x: jax.Array) -> jax.Array:
    """Return max(x, 0), and save it for the gradient instead of x.

    The next layer saves it too. With jax.nn.relu, XLA for GPUs recomputes the sum of a block's
    input and residual from both.
    """
    return nn.relu(x)


def _rectify_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = nn.relu(x)
    return y, y


def _rectify_backward(y: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    return (jnp.where(lax.optimization_barrier(y) > 0, g, jnp.zeros_like(g)),)


_rectify.defvjp(_rectify_forward, _rectify_backward)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    channels: int
    stride: int
    conv: Layer
    norm: Layer

    expansion = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [N, H, W, C] to [N, H / stride, W / stride, channels]."""
        y = self.conv(self.channels, 3, self.stride, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = self.conv(self.channels, 3, 1, name="conv2")(y)
        y = self.norm(name="bn2")(y)
        if y.shape != x.shape:
            x = self.conv(self.channels, 1, self.stride, name="shortcut")(x)
            x = self.norm(name="shortcut_bn")(x)
        return _rectify(x + y)


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; the 3x3 one strides."""

    channels: int
    stride: int
    conv: Layer
    norm: Layer

    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map [N, H, W, C] to [N, H / stride, W / stride, 4 * channels]."""
        y = self.conv(self.channels, 1, 1, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = self.conv(self.channels, 3, self.stride, name="conv2")(y)
        y = nn.relu(self.norm(name="bn2")(y))
        y = self.conv(4 * self.channels, 1, 1, name="conv3")(y)
        y = self.norm(name="bn3")(y)
        if y.shape != x.shape:
            x = self.conv(4 * self.channels, 1, self.stride, name="shortcut")(x)
            x = self.norm(name="shortcut_bn")(x)
        return _rectify(x + y)


class ResNet(nn.Module):
    """Encode images to the spatial average of the last stage.

    Attributes:
      stages: residual blocks of each stage.
      block: BasicBlock or BottleneckBlock.
      stem: "cifar", a 3x3 convolution; or "imagenet", a strided 7x7 one and a max-pool.
      width: channels of the first stage; each next one has twice as many.
      axis: name of the axis over devices that share batch statistics; None: one device.
      dtype: of the arithmetic; statistics and features are float32.
      remat: save only the inputs of blocks for the backward pass, which recomputes the rest.
      packed: pack pairs of columns of the stem and the first stage into channels; see packed.py.
        It applies to the stem "cifar", BasicBlock and images of even width, and has the same
        parameters.
    """

    stages: tuple[int, ...]
    block: type[BasicBlock] | type[BottleneckBlock]
    stem: str = "cifar"
    width: int = 64
    axis: str | None = None
    dtype: jnp.dtype = jnp.float32
    remat: bool = False
    packed: bool = False

    @property
    def features(self) -> int:
        """F."""
        return self.width * 2 ** (len(self.stages) - 1) * self.block.expansion

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Encode images [N, H, W, 3] to features, float32 [N, F].

        With `train`, batch statistics normalize and the running ones ("batch_stats") are updated.
        """
        norm, conv = partial(BatchNorm, train, self.axis), partial(Conv, dtype=self.dtype)
        kept = jax.checkpoint_policies.save_only_these_names(MOMENTS)
        block = nn.remat(self.block, policy=kept) if self.remat else self.block
        columns = 2 if self._packs(images) else 1
        x = pack_columns(images, columns)
        first = partial(conv, columns=columns), partial(norm, columns=columns)
        x = first[0](self.width, *((3, 1) if self.stem == "cifar" else (7, 2)), name="conv1")(x)
        x = nn.relu(first[1](name="bn1")(x))
        if self.stem == "imagenet":
            x = max_pool(x)
        for stage, blocks in enumerate(self.stages):
            for i in range(blocks):
                stride = 2 if stage and not i else 1
                layers: tuple[Layer, Layer] = (conv, norm) if stage else first
                if columns > 1 and (stage, i) == (1, 0):
                    layers = partial(_unpack, conv), norm
                name = f"layer{stage + 1}_{i}"
                x = block(self.width * 2**stage, stride, *layers, name=name)(x)
        return x.astype(jnp.float32).mean(axis=(1, 2))

    def _packs(self, images: jax.Array) -> bool:
        """Return whether the first stage is packed, which the second one's stride unpacks."""
        fits = self.stem == "cifar" and self.block is BasicBlock and len(self.stages) > 1
        return self.packed and fits and images.shape[2] % 2 == 0


def _unpack(conv: Layer, channels: int, size: int, stride: int, name: str) -> Any:
    """Return a layer of the block after a packed stage, whose strided convolutions unpack."""
    return conv(channels, size, stride, columns=stride, name=name)
