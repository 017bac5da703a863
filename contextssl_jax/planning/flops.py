"""Floating-point operations of a program, counted in its jaxpr.

Only matrix products and convolutions count, two operations for each multiplication and addition:
nearly all of a step, and what a peak is stated for. As in XLA's own count, multiplications by the
zeros of padding and dilation do not count, so a convolution and each of its gradients cost the
same. Unlike XLA's, a loop counts as often as it runs, and values that nothing reads do not count.
"""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn

from contextssl_jax.planning.counting import count_operations, part_of

Flops = Counter[tuple[str, str]]  # by part, and "forward" or "backward"


def count_flops(
    jaxpr: Jaxpr, platform: str, parts: Mapping[str, str] | None = None, *, loops: bool = True
) -> Flops:
    """Counts the floating-point operations of a program; within shard_map, of one device.

    Args:
      jaxpr: the program.
      platform: the branch of lax.platform_dependent that counts, such as "tpu".
      parts: names of parts by the name scope that their operations are in, such as a Flax module's.
      loops: count a scan as often as it runs; else once, as XLA does.

    Returns:
      Operations by (part, "forward" or "backward"); what is in no part is in "other".
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
    of_inputs, of_kernel, of_outputs = p["dimension_numbers"]
    products = [
        _products(inputs[i], kernel[k], outputs[o], *window)
        for i, k, o, *window in zip(
            of_inputs[2:],
            of_kernel[2:],
            of_outputs[2:],
            p["window_strides"],
            p["padding"],
            p["lhs_dilation"],
            p["rhs_dilation"],
            strict=True,
        )
    ]
    # The kernel's input channels are already those of one group.
    images = inputs[of_inputs[0]] // p["batch_group_count"]
    return 2 * images * kernel[of_kernel[0]] * kernel[of_kernel[1]] * math.prod(products)


def _shape(var: Any) -> tuple[int, ...]:
    return var.aval.shape


def _products(
    size: int,
    taps: int,
    outputs: int,
    stride: int,
    padding: tuple[int, int],
    dilation: int,
    spread: int,
) -> int:
    """Counts the pairs of an output and a tap that meet an entry of the input, along one axis."""
    place = np.arange(outputs)[:, None] * stride + np.arange(taps) * spread - padding[0]
    inside = (place >= 0) & (place < size * dilation) & (place % dilation == 0)
    return int(inside.sum())


_OPERATIONS = {"dot_general": _dot_general, "conv_general_dilated": _convolution}
