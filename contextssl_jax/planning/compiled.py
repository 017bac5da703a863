"""Kernels, bytes, products, copies and estimated times of a compiled train step, from its HLO."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from contextssl_jax.planning.counting import OTHER, part_of
from contextssl_jax.planning.hardware import Chip
from contextssl_jax.planning.hlo import Computation, Hlo, Instruction
from contextssl_jax.planning.products import find_product

# Instructions that do no work, as the end of an asynchronous one ("copy-done").
_FREE = frozenset(
    {
        "after-all",
        "async-update",
        "bitcast",
        "constant",
        "get-tuple-element",
        "opt-barrier",
        "parameter",
        "partition-id",
        "replica-id",
        "tuple",
    }
)
# A kernel that consists of these only moves data.
_DATA_MOVEMENT = frozenset(
    {"bitcast", "concatenate", "convert", "copy", "pad", "reshape", "slice", "transpose"}
)
_PREFETCHES = frozenset({"copy-start", "slice-start"})
_KINDS = ("copies", "transposes", "conversions", "prefetches")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


@dataclass(frozen=True)
class Cost:
    """Cost of kernels on one device.

    Attributes:
      kernels: number of kernels.
      bytes: sizes of their operands and results. The full size of an operand is counted even if
        the kernel reads a slice.
      flops: of their matrix products and convolutions.
      peak_seconds: time of the products at the chip's peak rate for their operands.
      roofline_seconds: sum over the kernels of the larger of the time for the bytes at the chip's
        memory bandwidth, and that of the products at the peak rate. The time to launch kernels and
        that of the interconnect are not included.
      cycles: estimate of the compiler, which only compilers for TPUs provide.
    """

    kernels: int = 0
    bytes: int = 0
    flops: int = 0
    peak_seconds: float = 0.0
    roofline_seconds: float = 0.0
    cycles: int = 0

    def add(self, other: "Cost", times: int = 1) -> "Cost":
        """Return the sum of this cost and a multiple of another."""
        return Cost(*(getattr(self, f) + times * getattr(other, f) for f in Cost.__match_args__))


def cost_by_part(hlo: Hlo, parts: Mapping[str, str], chip: Chip) -> dict[str, Cost]:
    """Sum the cost of the kernels by the part of the step that they belong to.

    A fusion belongs to the part of its result.

    Args:
      hlo: the compiled step.
      parts: names of parts by name scope; see `part_of`.
      chip: the chip.

    Returns:
      Costs by names such as "encoder, forward". "update" includes all operations after the
      gradient.
    """
    total: dict[str, Cost] = {}
    for instruction, computation, times in hlo.executed():
        if is_kernel(instruction):
            part = _part(instruction.scope, parts)
            cost = _cost(hlo, instruction, computation, chip)
            total[part] = total.get(part, Cost()).add(cost, times)
    return total


def is_kernel(instruction: Instruction) -> bool:
    """Return whether an instruction does work, other than asynchronous copies."""
    free = instruction.opcode in _FREE | _PREFETCHES or instruction.opcode.endswith("-done")
    return not free


def products_by_precision(hlo: Hlo) -> Counter[str]:
    """Count matrix products and convolutions by the precision of their operands.

    Returns:
      Counts by names such as "bf16 x bf16", "f32 x f32" (which GPUs compute in TF32 and TPUs in
      bfloat16) and "f32 x f32, highest".
    """
    total: Counter[str] = Counter()
    for kernel, computation, times in hlo.executed():
        for instruction, inside in _with_fused(hlo, kernel, computation):
            if product := find_product(instruction, inside):
                total[product.operands] += times
    return total


def count_data_movement(hlo: Hlo) -> dict[str, Counter[str]]:
    """Count the kernels that only move data, and the bytes of their results.

    Returns:
      "count" and "bytes" by kind: "transposes" change the memory layout, "conversions" only the
      precision, "copies" neither. "prefetches" are asynchronous copies between a TPU's memories.
    """
    total = {kind: Counter(count=0, bytes=0) for kind in _KINDS}
    for instruction, computation, times in hlo.executed():
        kind = _kind(hlo, instruction, computation)
        if kind is None:
            continue
        size = instruction.size
        if kind == "prefetches":  # whose result holds the source too
            size -= sum(computation[name].size for name in instruction.operands)
        total[kind].update(count=times, bytes=times * size)
    return total


def _part(scope: str, parts: Mapping[str, str]) -> str:
    if "jvp(" not in scope:
        return "update"
    part = part_of(scope, parts)
    name = "rendering and loss" if part == OTHER else part
    return f"{name}, {'backward' if 'transpose(' in scope else 'forward'}"


def _with_fused(
    hlo: Hlo, instruction: Instruction, computation: Computation
) -> Iterator[tuple[Instruction, Computation]]:
    """Yield an instruction and those in its fusion, each with its computation."""
    yield instruction, computation
    yield from hlo.within(instruction)


def _cost(hlo: Hlo, instruction: Instruction, computation: Computation, chip: Chip) -> Cost:
    operands = (computation[name].size for name in dict.fromkeys(instruction.operands))
    size = instruction.size + sum(operands)
    found = [find_product(*one) for one in _with_fused(hlo, instruction, computation)]
    products = [product for product in found if product]
    peak = sum(product.flops / chip.peak(*product.rate) for product in products)
    cycles = _CYCLES.search(instruction.attributes)
    return Cost(
        kernels=1,
        bytes=size,
        flops=sum(product.flops for product in products),
        peak_seconds=peak,
        roofline_seconds=max(size / chip.bandwidth, peak),
        cycles=int(cycles[1]) if cycles else 0,
    )


def _kind(hlo: Hlo, instruction: Instruction, computation: Computation) -> str | None:
    """Return the kind of a kernel that only moves data; None for other kernels."""
    if instruction.opcode in _PREFETCHES:
        return "prefetches"
    if instruction.opcode == "fusion":
        inner = [
            found
            for found in hlo.within(instruction)
            if found[0].opcode not in ("constant", "fusion", "parameter", "tuple")
        ]
    elif instruction.opcode in ("convert", "copy", "transpose"):
        inner = [(instruction, computation)]
    else:
        return None
    if any(one.opcode not in _DATA_MOVEMENT for one, _ in inner):
        return None
    if any(_is_transpose(*one) for one in inner):
        return "transposes"
    return "conversions" if any(one.opcode == "convert" for one, _ in inner) else "copies"


def _is_transpose(instruction: Instruction, computation: Computation) -> bool:
    if instruction.opcode == "transpose":
        return True
    operand = computation[instruction.operands[0]]
    return instruction.opcode == "copy" and instruction.layout != operand.layout
