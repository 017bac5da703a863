"""Bytes that cross devices in a step: what the step asks for, and what the compiled program sends.

Both are what one device sends in ring algorithms, which are optimal in bytes: of n devices, an
all-reduce of s bytes sends 2 (n - 1) / n s, an all-gather into s bytes or a reduce-scatter of s
bytes half of that.
"""

import functools
from collections import Counter
from collections.abc import Mapping

from jax.extend.core import Jaxpr, JaxprEqn

from contextssl_jax.planning.counting import OTHER, count_operations, part_of
from contextssl_jax.planning.hlo import parse_hlo
from contextssl_jax.planning.memory import size_of

# What functions of collectives.py are in a jaxpr, and what XLA calls it.
_ASKED = {"psum": "all-reduce", "all_gather": "all-gather", "reduce_scatter": "reduce-scatter"}

_COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)


def ring_bytes(operation: str, size: float, devices: int) -> float:
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


def sent_bytes(program: str, devices: int) -> dict[str, float]:
    """Returns the bytes that one device sends in a compiled program, by operation.

    Args:
      program: HLO text of a program for so many devices, with synchronous collectives, as XLA
        writes it for CPUs. Collectives within a loop count as often as it runs.
      devices: n, which all take part.
    """
    total: Counter[str] = Counter()
    for instruction, _, times in parse_hlo(program).executed():
        if (name := instruction.opcode) in _COLLECTIVES:
            whole = instruction.size * (devices if name == "reduce-scatter" else 1)
            total[name] += times * ring_bytes(name, whole, devices)  # type: ignore[assignment]
    return dict(total)


def requested_bytes(
    jaxpr: Jaxpr, devices: int, platform: str, parts: Mapping[str, str]
) -> Counter[str]:
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
        return ring_bytes(operation, size_of([var.aval for var in whole]), devices)

    costs = {primitive: functools.partial(cost, name) for primitive, name in _ASKED.items()}
    return count_operations(jaxpr, costs, label, platform)
