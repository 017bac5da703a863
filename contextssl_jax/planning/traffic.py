"""Traffic between devices in a step: bytes that the step requests and the compiled program sends.

Both are the bytes that one device sends in ring algorithms, which are optimal in bytes. With n
devices, an all-reduce of s bytes sends 2 (n - 1) / n s, and an all-gather into s bytes or a
reduce-scatter of s bytes sends half of that.
"""

import functools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from jax.extend.core import Jaxpr, JaxprEqn

from contextssl_jax.distributed.sharding import GATHER
from contextssl_jax.planning.compiled import is_kernel
from contextssl_jax.planning.counting import OTHER, count_operations, part_of
from contextssl_jax.planning.hlo import Computation, Hlo, Instruction
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
# For TPUs, XLA fuses an asynchronous collective into the kernels that overlap with it. Each of them
# contains the collective, as do fusions for its start and its end.
_TPU_UNFINISHED = re.compile(r"async-collective-start|async_collective_fusion")
_TPU_DONE = "async-collective-done"


@dataclass(frozen=True)
class Collective:
    """Collectives of one kind.

    Attributes:
      count: number of executions.
      bytes: that one device sends.
      overlapped: how many are asynchronous, with kernels scheduled between start and end.
      overlapped_bytes: that one device sends in these.
    """

    count: int = 0
    bytes: float = 0.0
    overlapped: int = 0
    overlapped_bytes: float = 0.0


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


def collectives(hlo: Hlo, devices: int) -> dict[str, Collective]:
    """Return the collectives of a compiled program by XLA's name, such as "all-reduce".

    Those in a loop are counted as many times as it runs.

    Args:
      hlo: the program.
      devices: number of devices, all of which take part in every collective.
    """
    total: dict[str, Collective] = {}
    for instruction, computation, times in hlo.executed():
        name = _collective(hlo, instruction)
        if name is None:
            continue
        size = instruction.size * (devices if name == "reduce-scatter" else 1)
        sent = times * ring_bytes(name, size, devices)
        hidden = _overlaps(instruction, computation)
        old = total.get(name, Collective())
        total[name] = Collective(
            old.count + times,
            old.bytes + sent,
            old.overlapped + times * hidden,
            old.overlapped_bytes + sent * hidden,
        )
    return total


def _collective(hlo: Hlo, instruction: Instruction) -> str | None:
    """Return the name of the collective that an instruction is, or the end of; else None."""
    opcode = instruction.opcode.removesuffix("-done")
    if opcode in _COLLECTIVES:
        return opcode
    if opcode != "fusion" or any(
        map(_TPU_UNFINISHED.match, (instruction.name, *instruction.called))
    ):
        return None
    inner = (one.opcode for one, _ in hlo.within(instruction))
    return next((opcode for opcode in inner if opcode in _COLLECTIVES), None)


def _overlaps(done: Instruction, computation: Computation) -> bool:
    """Return whether kernels are scheduled between the start of a collective and its end."""
    if done.name.startswith(_TPU_DONE):
        return True
    if not done.opcode.endswith("-done"):
        return False
    order = list(computation)
    between = order[order.index(done.operands[0]) + 1 : order.index(done.name)]
    kernels = (computation[name] for name in between)
    return any(is_kernel(one) and not one.opcode.endswith("-start") for one in kernels)


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
