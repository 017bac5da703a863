"""Compilation of the train step for chips that this machine does not have, and its cost."""

import functools
import json
import resource
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import jax
from ml_collections import ConfigDict

from contextssl_jax.config import Command, parse_command_line
from contextssl_jax.errors import UserError, reraise_out_of_memory, run_command
from contextssl_jax.planning.compiled import (
    Cost,
    cost_by_part,
    count_data_movement,
    products_by_precision,
)
from contextssl_jax.planning.flops import count_flops
from contextssl_jax.planning.hlo import parse_hlo
from contextssl_jax.planning.isolation import run_isolated
from contextssl_jax.planning.program import build_program
from contextssl_jax.planning.targets import TARGETS, Target, check_installed, describe_devices
from contextssl_jax.planning.traffic import collectives
from contextssl_jax.progress import task

_ERROR = "error: "  # how run_command begins the line of a UserError


def compile_isolated(command: Command) -> dict[str, Any]:
    """Compile the train step for a command's --chip in a process of its own, which takes minutes.

    Returns:
      See `compile_step`.

    Raises:
      UserError: --chip is missing or unknown, its compiler is not installed or aborts, an option
        is invalid, or the step does not fit into the chip's memory.
      RuntimeError: the process fails otherwise; the message is its standard error.
    """
    if command.chip is None:
        raise UserError(f"--chip: required. Choose one of {', '.join(TARGETS)}.")
    check_installed(command.chip)
    environment = {"JAX_PLATFORMS": "cpu", **TARGETS[command.chip].environment}
    with task(f"compiling the step for {command.chip}"):
        status, output, messages = run_isolated(
            [sys.executable, "-m", __name__, *command.argv[1:]], environment
        )
    if status:
        last = messages.strip().rpartition("\n")[2]
        if last.startswith(_ERROR):
            raise UserError(last.removeprefix(_ERROR))
        raise RuntimeError(messages)
    results: dict[str, Any] = json.loads(output.splitlines()[-1])
    return results


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


def _compile(argv: Sequence[str]) -> None:
    """Compile the step of a command line that has --chip, and print the results as JSON."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no core dump after an abort
    command = parse_command_line(argv, ("plan",))
    assert command.chip is not None
    advice = "Use more --devices, --config.model.remat=True or --config.train.accumulate_steps"
    with reraise_out_of_memory(advice):
        print(json.dumps(compile_step(command.config, command.chip, command.devices or 1)))


if __name__ == "__main__":
    sys.exit(run_command(_compile, sys.argv))
