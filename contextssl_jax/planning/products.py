"""Matrix products and convolutions in HLO: the precision of their operands, and their FLOPs."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from contextssl_jax.planning.flops import count_taps
from contextssl_jax.planning.hlo import Computation, Instruction

_PRECISION = re.compile(r"operand_precision=\{(\w+),|algorithm=(\w+)")
_MATRIX_LIBRARY, _CONVOLUTION_LIBRARY = re.compile(r"__cublas\$"), re.compile(r"__cudnn\$conv")
# Dimensions that a matrix product sums over, in a product and in a library's configuration.
_CONTRACTED = re.compile(
    r'lhs_contracting_dims=\{([\d,]*)\}|"lhs_contracting_dimensions":\[([\d",]*)\]'
)
_LABELS = re.compile(r"dim_labels=(\w+)_(\w+)->(\w+)")
_WINDOW = re.compile(r"window=\{([^}]*)\}")
_GROUPS = re.compile(r"batch_group_count=(\d+)")


class Product(NamedTuple):
    """A matrix product or convolution."""

    operands: str  # such as "bf16 x bf16", "f32 x f32" or "f32 x f32, highest"
    flops: int  # without those of zeros in padding and dilation

    @property
    def rate(self) -> tuple[str, str]:
        """The dtype and precision that give its peak rate; see Chip.peak."""
        low = self.operands.startswith("bf16 x bf16") or "bf16_bf16" in self.operands
        precision = self.operands.partition(", ")[2]
        return (
            "bfloat16" if low else "float32",
            precision if precision in ("high", "highest") else "default",
        )


def find_product(instruction: Instruction, computation: Computation) -> Product | None:
    """Return the product that an instruction is; None for any other instruction.

    Args:
      instruction: the instruction, which may be a call of cuBLAS or cuDNN.
      computation: the instructions of its computation.
    """
    library = instruction.attribute("custom_call_target")
    if instruction.opcode == "dot" or _MATRIX_LIBRARY.match(library):
        count = _count_matrix_product
    elif instruction.opcode == "convolution" or _CONVOLUTION_LIBRARY.match(library):
        count = _count_convolution
    else:
        return None
    left, right = (computation[name] for name in instruction.operands[:2])
    found = _PRECISION.search(instruction.attributes)
    precision = f", {found[1] or found[2]}" if found else ""
    return Product(
        f"{left.dtype} x {right.dtype}{precision}", count(instruction, left, right, library)
    )


def _count_matrix_product(
    instruction: Instruction, left: Instruction, right: Instruction, library: str
) -> int:
    del right, library
    found = _CONTRACTED.search(instruction.attributes)
    dims = re.findall(r"\d+", found[1] or found[2] or "") if found else []
    return 2 * math.prod(instruction.dims) * math.prod(left.dims[int(dim)] for dim in dims)


def _count_convolution(
    instruction: Instruction, left: Instruction, right: Instruction, library: str
) -> int:
    """Count a convolution; cuDNN's gradients have the attributes of the forward convolution."""
    shapes = left.dims, right.dims, instruction.dims
    if "BackwardInput" in library:
        outputs, kernel, inputs = shapes
    elif "BackwardFilter" in library:
        inputs, outputs, kernel = shapes
    else:
        inputs, kernel, outputs = shapes
    labels = _LABELS.search(instruction.attributes)
    if labels is None:
        return 0
    groups = _GROUPS.search(instruction.attributes)
    images = inputs[labels[1].index("b")] // (int(groups[1]) if groups else 1)
    entries = kernel[labels[2].index("i")] * kernel[labels[2].index("o")]
    axes = [
        count_taps(
            inputs[labels[1].index(axis)],
            kernel[labels[2].index(axis)],
            outputs[labels[3].index(axis)],
            *window,
        )
        for axis, window in zip(_axes(labels[1]), _windows(instruction), strict=True)
    ]
    return 2 * images * entries * math.prod(axes)


def _axes(labels: str) -> list[str]:
    """Return the labels of the spatial dimensions, in their order."""
    return sorted(label for label in labels if label.isdigit())


def _windows(
    instruction: Instruction,
) -> Iterator[tuple[int, tuple[int, int], int, int]]:
    """Yield stride, padding, input dilation and kernel dilation of each spatial dimension."""
    found = _WINDOW.search(instruction.attributes)
    fields = dict(field.split("=") for field in found[1].split()) if found else {}
    count = len(fields.get("size", "").split("x")) if fields else 0

    def values(name: str, default: str) -> list[str]:
        return fields[name].split("x") if name in fields else [default] * count

    for stride, pad, left, right in zip(
        values("stride", "1"),
        values("pad", "0_0"),
        values("lhs_dilate", "1"),
        values("rhs_dilate", "1"),
        strict=True,
    ):
        low, high = pad.split("_")
        yield int(stride), (int(low), int(high)), int(left), int(right)
