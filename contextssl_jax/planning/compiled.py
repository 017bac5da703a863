"""Kernels, bytes, products, copies and cycles of a compiled train step, from its HLO."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from contextssl_jax.planning.counting import OTHER, part_of
from contextssl_jax.planning.hlo import Computation, Hlo, Instruction

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
_LIBRARY_PRODUCTS = re.compile(r"__cudnn\$conv|__cublas\$")
_PREFETCHES = frozenset({"copy-start", "slice-start"})
_KINDS = ("copies", "transposes", "conversions", "prefetches")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


def kernels_by_part(hlo: Hlo, parts: Mapping[str, str]) -> dict[str, Counter[str]]:
    """Sum kernels, bytes and cycles by the part of the step that they belong to.

    A fusion belongs to the part of its result. The bytes of a kernel are the sizes of its operands
    and of its result. The full size of an operand is counted even if the kernel reads a slice.

    Args:
      hlo: the compiled step.
      parts: names of parts by name scope; see `part_of`.

    Returns:
      Counts of "kernels", "bytes" and "cycles", by names such as "encoder, forward". "update"
      includes all operations after the gradient. Cycles are estimates of the compiler, which only
      compilers for TPUs provide.
    """
    total: dict[str, Counter[str]] = defaultdict(Counter)
    for instruction, computation, times in hlo.executed():
        if instruction.opcode in _FREE | _PREFETCHES or instruction.opcode.endswith("-done"):
            continue
        moved = instruction.size + sum(
            computation[name].size for name in dict.fromkeys(instruction.operands)
        )
        found = _CYCLES.search(instruction.attributes)
        total[_part(instruction.scope, parts)].update(
            kernels=times, bytes=times * moved, cycles=times * int(found[1]) if found else 0
        )
    return dict(total)


def products_by_precision(hlo: Hlo) -> Counter[str]:
    """Count matrix products and convolutions by the precision of their operands.

    Returns:
      Counts by names such as "bf16 x bf16", "f32 x f32" (which GPUs compute in TF32 and TPUs in
      bfloat16) and "f32 x f32, highest".
    """
    total: Counter[str] = Counter()
    for instruction, computation, times in _all(hlo):
        custom = instruction.attribute("custom_call_target")
        if instruction.opcode in ("dot", "convolution") or _LIBRARY_PRODUCTS.match(custom):
            left, right = (computation[name].dtype for name in instruction.operands[:2])
            total[f"{left} x {right}{_precision(instruction)}"] += times
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


def _precision(instruction: Instruction) -> str:
    found = re.search(r"operand_precision=\{(\w+),|algorithm=(\w+)", instruction.attributes)
    return f", {found[1] or found[2]}" if found else ""


def _all(hlo: Hlo) -> Iterator[tuple[Instruction, Computation, int]]:
    """Yield executed instructions and the instructions in their fusions."""
    for instruction, computation, times in hlo.executed():
        yield instruction, computation, times
        for inner, inside in hlo.within(instruction):
            yield inner, inside, times


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
