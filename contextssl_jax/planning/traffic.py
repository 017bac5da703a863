"""Traffic between devices in a step: bytes that the step requests and the compiled program sends.

Both are the bytes that one device sends in ring algorithms, which are optimal in bytes. With n
devices, an all-reduce of s bytes sends 2 (n - 1) / n s, and an all-gather into s bytes or a
reduce-scatter of s bytes sends half of that.
"""

import functools
from collections import Counter
from collections.abc import Mapping

from jax.extend.core import Jaxpr, JaxprEqn

from contextssl_jax.distributed.sharding import GATHER
from contextssl_jax.planning.counting import OTHER, count_operations, part_of
from contextssl_jax.planning.hlo import parse_hlo
from contextssl_jax.planning.memory import size_of

# The primitives of the functions in collectives.py and sharding.py, with XLA's names.
_REQUESTED = {"psum": "all-reduce", "all_gather": "all-gather", "reduce_scatter": "reduce-scatter"}

_COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)


def ring_bytes(operation: str, size: float, devices: int) -> float:
    """Return the bytes that one device sends in a collective operation.

    Args:
      operation: XLA's name of the operation, such as "all-reduce".
      size: bytes of the full array: the input of a reduction, or the result of a gather.
      devices: number of devices.
    """
    if operation == "collective-permute":
        return size
    passes = 2 if operation == "all-reduce" else 1
    return passes * size * (devices - 1) / devices


def sent_bytes(program: str, devices: int) -> dict[str, float]:
    """Return the bytes that one device sends in a compiled program, by operation.

    Args:
      program: HLO text of a program with synchronous collectives, as XLA compiles it for CPUs.
        Collectives in a loop are counted as many times as it runs.
      devices: number of devices, all of which take part in every collective.
    """
    total: Counter[str] = Counter()
    for instruction, _, times in parse_hlo(program).executed():
        if (name := instruction.opcode) in _COLLECTIVES:
            size = instruction.size * (devices if name == "reduce-scatter" else 1)
            total[name] += times * ring_bytes(name, size, devices)  # type: ignore[assignment]
    return dict(total)


def requested_bytes(
    jaxpr: Jaxpr, devices: int, platform: str, parts: Mapping[str, str]
) -> Counter[str]:
    """Return the bytes that one device sends for the collectives in the jaxpr of a step.

    Args:
      jaxpr: the step under shard_map.
      devices: number of devices, all of which take part in every collective.
      platform: see count_flops.
      parts: see count_flops.

    Returns:
      Bytes by purpose: "gradients", and "parameters", the gather of shards; "statistics:
      PART", the batch statistics of a module; and "loss", all other collectives of losses and
      metrics, such as the gather of negatives.
    """

    def label(scope: str) -> str:
        if "jvp(" not in scope:  # after the backward pass
            return "parameters" if GATHER in scope else "gradients"
        part = part_of(scope, parts)
        return "loss" if part == OTHER else f"statistics: {part}"

    def cost(operation: str, eqn: JaxprEqn) -> float:
        full = eqn.outvars if operation == "all-gather" else eqn.invars
        return ring_bytes(operation, size_of([var.aval for var in full]), devices)

    costs = {primitive: functools.partial(cost, name) for primitive, name in _REQUESTED.items()}
    return count_operations(jaxpr, costs, label, platform)
