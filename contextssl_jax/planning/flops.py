"""Floating-point operations of a program, counted in its jaxpr.

Only matrix products and convolutions count, two operations for each multiplication and addition:
nearly all of a step, and what a peak is stated for. As in XLA's own count, multiplications by the
zeros of padding and dilation do not count, so a convolution and each of its gradients cost the
same. Unlike XLA's, a loop counts as often as it runs, and values that nothing reads do not count.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Var, jaxprs_in_params

OTHER = "other"

Flops = Counter[tuple[str, str]]  # by part, and "forward" or "backward"


def count_flops(
    jaxpr: Jaxpr, platform: str, parts: Mapping[str, str] | None = None, *, loops: bool = True
) -> Flops:
    """Counts the floating-point operations of a program.

    Within shard_map shapes are those of one device, and so is the count. Of a condition, the
    branch that costs most counts; a loop whose length is not known counts once.

    Args:
      jaxpr: the program.
      platform: the branch of lax.platform_dependent that counts, such as "tpu".
      parts: names of parts by the name scope that their operations are in, such as a Flax module's.
      loops: count a scan as often as it runs; else once, as XLA does.

    Returns:
      Operations by (part, "forward" or "backward"); what is in no part is in "other".
    """

    def count(jaxpr: Jaxpr, results: Iterable[Any], outer: str) -> Flops:
        total: Flops = Counter()
        read = {var for var in results if isinstance(var, Var)}
        for eqn in reversed(jaxpr.eqns):
            if not eqn.effects and read.isdisjoint(eqn.outvars):
                continue
            scope = f"{outer}/{eqn.source_info.name_stack}"
            operation = _OPERATIONS.get(eqn.primitive.name)
            if operation:
                way = "backward" if "transpose(" in scope else "forward"
                total[part_of(scope, parts or {}), way] += operation(eqn)
            inner = [
                count(one, _read_of(one, eqn, read), scope) for one in jaxprs_in_params(eqn.params)
            ]
            if eqn.primitive.name == "cond":
                inner = [_taken(eqn, inner, platform)]
            times = eqn.params["length"] if loops and eqn.primitive.name == "scan" else 1
            for one in inner:
                total.update({key: times * n for key, n in one.items()})
            read.update(var for var in eqn.invars if isinstance(var, Var))
        return total

    return count(jaxpr, jaxpr.outvars, "")


def part_of(scope: str, parts: Mapping[str, str]) -> str:
    """Returns the part that a name scope such as "transpose(jvp(ResNet))/conv1" belongs to."""
    return next((parts[word] for word in re.findall(r"\w+", scope) if word in parts), OTHER)


def _read_of(inner: Jaxpr, eqn: JaxprEqn, read: set[Var]) -> list[Any]:
    """Returns the results of an equation's inner program that are read; of a loop, all."""
    if eqn.primitive.name in ("scan", "while") or len(inner.outvars) != len(eqn.outvars):
        return inner.outvars
    return [own for own, var in zip(inner.outvars, eqn.outvars, strict=True) if var in read]


def _taken(eqn: JaxprEqn, branches: list[Flops], platform: str) -> Flops:
    """Returns the count of the branch that the platform takes, or else that costs most."""
    platforms = eqn.params.get("branches_platforms")
    if platforms is None:
        return max(branches, key=Counter.total)
    # None is the default branch, the last.
    choices = zip(branches, platforms, strict=True)
    return next(branch for branch, on in choices if on is None or platform in on)


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
