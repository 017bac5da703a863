"""Floating-point operations (FLOPs) of a program, counted in its jaxpr.

Only matrix products and convolutions are counted, as two operations per multiply-add. They are
nearly all operations of a step, and vendors state peak rates for them. As in XLA's cost analysis,
multiplications by zeros of padding and dilation are not counted, so a convolution and each of its
gradients have the same count. Unlike in XLA's, a loop is counted as many times as it runs, and
unused values are not counted.
"""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn

from contextssl_jax.planning.counting import count_operations, part_of

Flops = Counter[tuple[str, str]]  # by (part, "forward" or "backward")


def count_flops(
    jaxpr: Jaxpr, platform: str, parts: Mapping[str, str] | None = None, *, loops: bool = True
) -> Flops:
    """Count the FLOPs of a program. Within shard_map, the count is that of one device.

    Args:
      jaxpr: the program.
      platform: the platform, such as "tpu", whose branch of lax.platform_dependent is counted.
      parts: names of parts by name scope, such as that of a Flax module.
      loops: True to count a scan as many times as it runs; False to count it once, as XLA does.

    Returns:
      FLOPs by (part, "forward" or "backward"). Operations outside all parts are in "other".
    """

    def label(scope: str) -> tuple[str, str]:
        return part_of(scope, parts or {}), "backward" if "transpose(" in scope else "forward"

    return count_operations(jaxpr, _OPERATIONS, label, platform, loops=loops)


def _dot_general(eqn: JaxprEqn) -> int:
    left, right = map(_shape, eqn.invars)
    (contracted, _), (batch, _) = eqn.params["dimension_numbers"]
    shared = math.prod(left[i] for i in (*contracted, *batch))
    return 2 * math.prod(left) * math.prod(right) // shared


def _convolution(eqn: JaxprEqn) -> int:
    inputs, kernel, outputs = map(_shape, (*eqn.invars, *eqn.outvars))
    p = eqn.params
    input_dims, kernel_dims, output_dims = p["dimension_numbers"]
    products = [
        count_taps(inputs[i], kernel[k], outputs[o], *window)
        for i, k, o, *window in zip(
            input_dims[2:],
            kernel_dims[2:],
            output_dims[2:],
            p["window_strides"],
            p["padding"],
            p["lhs_dilation"],
            p["rhs_dilation"],
            strict=True,
        )
    ]
    # The input channels of the kernel are those of one group.
    images = inputs[input_dims[0]] // p["batch_group_count"]
    return 2 * images * kernel[kernel_dims[0]] * kernel[kernel_dims[1]] * math.prod(products)


def _shape(var: Any) -> tuple[int, ...]:
    return var.aval.shape


def count_taps(
    size: int,
    taps: int,
    outputs: int,
    stride: int,
    padding: tuple[int, int],
    input_dilation: int,
    kernel_dilation: int,
) -> int:
    """Count the pairs of an output and a kernel tap that read an input entry, along one axis."""
    position = np.arange(outputs)[:, None] * stride + np.arange(taps) * kernel_dilation - padding[0]
    inside = (position >= 0) & (position < size * input_dilation)
    return int((inside & (position % input_dilation == 0)).sum())


_OPERATIONS = {"dot_general": _dot_general, "conv_general_dilated": _convolution}
