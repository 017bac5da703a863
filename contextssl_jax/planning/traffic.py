"""Bytes that cross devices in a step: in the compiled program, and by what the method needs.

Both are what one device sends in ring algorithms, which are optimal in bytes: of n devices, an
all-reduce of s bytes sends 2 (n - 1) / n s, an all-gather into s bytes or a reduce-scatter of s
bytes half of that.
"""

import functools
import math
import re
from collections import defaultdict

_OPERATION = re.compile(
    r" = (.+?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)\("
)
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_CALLED = re.compile(r"\b(?:body|calls|to_apply)=%?([\w.-]+)|branch_computations=\{([^}]*)\}")
_LENGTH = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


def ring(operation: str, size: float, devices: int) -> float:
    """Returns the bytes that one device sends.

    Args:
      operation: as XLA calls it, such as "all-reduce".
      size: bytes of the whole array: what is reduced, or the result of a gather.
      devices: n, on the ring.
    """
    if operation == "collective-permute":
        return size
    passes = 2 if operation == "all-reduce" else 1
    return passes * size * (devices - 1) / devices


def sent(program: str, devices: int) -> dict[str, float]:
    """Returns the bytes that one device sends in a compiled program, by operation.

    Args:
      program: HLO text of a program for so many devices, with synchronous collectives, as XLA
        writes it for CPUs. Collectives within a loop count as often as it runs.
      devices: n, which all take part.
    """
    own: dict[str, list[tuple[str, float]]] = defaultdict(list)
    calls: dict[str, list[tuple[str, int]]] = defaultdict(list)
    entry = name = ""
    for line in program.splitlines():
        if header := _COMPUTATION.match(line):
            name = header[2]
            entry = name if header[1] else entry
        if found := _OPERATION.search(line):
            size = sum(_size(*array) for array in _ARRAY.findall(found[1]))
            whole = size * devices if found[2] == "reduce-scatter" else size
            own[name].append((found[2], ring(found[2], whole, devices)))
        length = int(match[1]) if (match := _LENGTH.search(line)) else 1
        for one, several in _CALLED.findall(line):
            called = re.findall(r"[\w.-]+", one or several)
            calls[name] += [(computation, length) for computation in called]

    @functools.cache
    def total(name: str) -> dict[str, float]:
        result: dict[str, float] = defaultdict(float)
        for operation, size in own[name]:
            result[operation] += size
        for computation, times in calls[name]:
            for operation, size in total(computation).items():
                result[operation] += times * size
        return result

    return dict(total(entry))


def needed(
    *,
    devices: int,
    gradients: int,
    statistics: int,
    embeddings: int,
    metrics: int,
) -> dict[str, float]:
    """Returns the bytes that one device has to send, by what they are.

    Args:
      devices: n.
      gradients: bytes of one device's gradient.
      statistics: bytes of the running batch statistics: as many cross in the forward pass, and
        their gradients in the backward pass.
      embeddings: bytes of the global batch's embeddings where these are gathered, else 0; their
        gradients are scattered.
      metrics: bytes of what is averaged to be told.
    """
    return {
        "gradients": ring("all-reduce", gradients, devices),
        "batch statistics": ring("all-reduce", 2 * statistics, devices),
        "embeddings": ring("all-gather", embeddings, devices)
        + ring("reduce-scatter", embeddings, devices),
        "metrics": ring("all-reduce", metrics, devices),
    }


def _size(kind: str, shape: str) -> int:
    """Returns the bytes of an array such as bf16[2,3], by its type's name and its shape."""
    entry = 1 if kind == "pred" else int(re.sub(r"\D", "", kind)) // 8
    return entry * math.prod(int(n) for n in shape.split(",") if n)
