"""Bytes that cross devices in a step: what the step asks for, and what the compiled program sends.

Both are what one device sends in ring algorithms, which are optimal in bytes: of n devices, an
all-reduce of s bytes sends 2 (n - 1) / n s, an all-gather into s bytes or a reduce-scatter of s
bytes half of that.
"""

import functools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping

from jax.extend.core import Jaxpr, JaxprEqn

from contextssl_jax.planning.counting import OTHER, count, part_of
from contextssl_jax.planning.memory import size_of

# What functions of collectives.py are in a jaxpr, and what XLA calls it.
_ASKED = {"psum": "all-reduce", "all_gather": "all-gather", "reduce_scatter": "reduce-scatter"}

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


def asked(jaxpr: Jaxpr, devices: int, platform: str, parts: Mapping[str, str]) -> Counter[str]:
    """Returns the bytes that one device sends for what a step asks of all devices.

    Args:
      jaxpr: the step, of one device in shard_map.
      devices: n, which all take part.
      platform: see count_flops.
      parts: likewise.

    Returns:
      Bytes by what they are: "gradients"; "statistics: PART", of a module's batches; and "loss",
      all else that losses and metrics ask for, such as embeddings to be negatives.
    """

    def label(scope: str) -> str:
        if "jvp(" not in scope:  # after the backward pass
            return "gradients"
        part = part_of(scope, parts)
        return "loss" if part == OTHER else f"statistics: {part}"

    def cost(operation: str, eqn: JaxprEqn) -> float:
        whole = eqn.outvars if operation == "all-gather" else eqn.invars
        return ring(operation, size_of([var.aval for var in whole]), devices)

    costs = {primitive: functools.partial(cost, name) for primitive, name in _ASKED.items()}
    return count(jaxpr, costs, label, platform)


def _size(kind: str, shape: str) -> int:
    """Returns the bytes of an array such as bf16[2,3], by its type's name and its shape."""
    entry = 1 if kind == "pred" else int(re.sub(r"\D", "", kind)) // 8
    return entry * math.prod(int(n) for n in shape.split(",") if n)
