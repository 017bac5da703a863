"""Compilation of the train step for chips that this machine does not have, and its cost."""

import functools
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import jax
from ml_collections import ConfigDict

from contextssl_jax.planning.compiled import (
    Cost,
    cost_by_part,
    count_data_movement,
    products_by_precision,
)
from contextssl_jax.planning.flops import count_flops
from contextssl_jax.planning.hlo import parse_hlo
from contextssl_jax.planning.program import build_program
from contextssl_jax.planning.targets import TARGETS, Target, describe_devices
from contextssl_jax.planning.traffic import collectives


def compile_step(config: ConfigDict, chip: str, devices: int) -> dict[str, Any]:
    """Compile the train step in this process, which ends if the compiler aborts.

    Args:
      config: the options.
      chip: a name in TARGETS, whose environment must be set.
      devices: number of devices that the global batch is split over.

    Returns:
      Results for one device by name: compile time in seconds, bytes of memory, FLOPs, collectives,
      and by part of the step and in total the number of kernels, the bytes that they read and
      write, FLOPs of their products, an estimate of their milliseconds (see "estimate"), and the
      share of these that the products take at the chip's peak rate.

    Raises:
      UserError: an option is invalid, or the chip has no such number of devices.
    """
    target = TARGETS[chip]
    chips = describe_devices(chip, devices)
    program = build_program(config, devices, chips)
    lowered = program.traced.lower()
    start = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    hlo, memory = parse_hlo(compiled.as_text()), compiled.memory_analysis()
    xla = compiled.cost_analysis() or {}
    costs = cost_by_part(hlo, program.parts, target.chip)
    sent, total = collectives(hlo, devices), _figures(costs.values(), target)
    return {
        "chip": chip,
        "device": chips[0].device_kind,
        "devices": devices,
        "method": config.method,
        "data": config.data.name,
        "encoder": config.model.encoder,
        "dtype": config.model.dtype,
        "contexts": config.data.contexts,
        "pairs": config.data.pairs,
        "jax": jax.__version__,
        "seconds": round(seconds, 1),
        "memory": {
            "arguments": memory.argument_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "outputs beside donated arguments": (
                memory.output_size_in_bytes - memory.alias_size_in_bytes
            ),
        },
        "flops": {
            "products": count_flops(program.traced.jaxpr.jaxpr, target.platform).total(),
            "xla": xla.get("flops"),
        },
        "bytes": {
            "kernels": total["bytes"],
            "xla": xla.get("bytes accessed"),
        },
        "kernels": total["kernels"],
        "estimate": "roofline" if target.clock is None else "compiler",
        "milliseconds": total["milliseconds"],
        "peak_share": total["peak_share"],
        "parts": {part: _figures([cost], target) for part, cost in sorted(costs.items())},
        "collectives": {name: asdict(collective) for name, collective in sorted(sent.items())},
        "products": dict(products_by_precision(hlo).most_common()),
        "moves": {kind: dict(counts) for kind, counts in count_data_movement(hlo).items()},
    }


def _figures(costs: Iterable[Cost], target: Target) -> dict[str, Any]:
    """Return the sum of costs, with estimated milliseconds and the share of the peak rate."""
    total = functools.reduce(Cost.add, costs, Cost())
    roofline, clock = total.roofline_seconds, target.clock
    seconds = roofline if clock is None else total.cycles / clock
    return {
        "kernels": total.kernels,
        "bytes": total.bytes,
        "flops": total.flops,
        "milliseconds": round(1e3 * seconds, 3),
        "peak_share": round(total.peak_seconds / seconds, 4) if seconds else 0.0,
    }
