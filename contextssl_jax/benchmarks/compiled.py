"""Compile the train step for an accelerator that this machine does not have, and print its cost.

    python -m contextssl_jax.benchmarks.compiled --config=cifar10_crop_blur --chip=h100

Requires XLA's compiler for NVIDIA GPUs (pip install 'contextssl-jax[compile-gpu]') or for TPUs
('contextssl-jax[compile-tpu]'), but no data and no accelerator. GPU kernels are not autotuned,
which requires a GPU. --devices=N compiles for N chips under shard_map, and --out=FILE writes the
results as JSON.
"""

import json
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from contextssl_jax.config import parse_command_line
from contextssl_jax.errors import Parser, UserError
from contextssl_jax.planning.compiled import (
    count_data_movement,
    kernels_by_part,
    products_by_precision,
)
from contextssl_jax.planning.flops import count_flops
from contextssl_jax.planning.hlo import parse_hlo
from contextssl_jax.planning.isolation import run_isolated
from contextssl_jax.planning.program import build_program
from contextssl_jax.planning.tables import format_table, with_notes
from contextssl_jax.planning.targets import TARGETS, check_installed, describe_devices
from contextssl_jax.storage.files import json_output

_IN_PROCESS = "--in-process"


def main(argv: Sequence[str]) -> int:
    """Compile the step of the command line's config, and print the results."""
    try:
        parser = Parser(prog="contextssl_jax.benchmarks.compiled", allow_abbrev=False)
        parser.add_argument("--chip", required=True, choices=TARGETS)
        parser.add_argument(_IN_PROCESS, action="store_true")
        options, rest = parser.parse_known_args(argv[1:])
        command = parse_command_line([argv[0], *rest], ("plan",))
        devices = command.devices or 1
        check_installed(options.chip)
        if options.in_process:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no core dump after an abort
            print(json.dumps(compile_step(command.config, options.chip, devices)))
            return 0
        with json_output(command.out) as write:
            command_line = [sys.executable, "-m", "contextssl_jax.benchmarks.compiled", _IN_PROCESS]
            environment = {"JAX_PLATFORMS": "cpu", **TARGETS[options.chip].environment}
            status, output, messages = run_isolated([*command_line, *argv[1:]], environment)
            if status:
                print(messages, end="", file=sys.stderr)
                return status
            results = json.loads(output.splitlines()[-1])
            print(format_results(results))
            write(results)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def compile_step(config: ConfigDict, chip: str, devices: int) -> dict[str, Any]:
    """Compile the train step in this process, which ends if the compiler aborts.

    Args:
      config: the options.
      chip: a name in TARGETS, whose environment must be set.
      devices: number of devices that the global batch is split over.

    Returns:
      Results for one device by name: compile time in seconds, bytes of memory, FLOPs, number of
      kernels, and bytes that the kernels read and write.

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
    kernels = kernels_by_part(hlo, program.parts)
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
            "kernels": sum(counts["bytes"] for counts in kernels.values()),
            "xla": xla.get("bytes accessed"),
        },
        "kernels": sum(counts["kernels"] for counts in kernels.values()),
        "milliseconds": _milliseconds(
            sum(counts["cycles"] for counts in kernels.values()), target.clock
        ),
        "parts": {
            part: {
                "kernels": counts["kernels"],
                "bytes": counts["bytes"],
                "milliseconds": _milliseconds(counts["cycles"], target.clock),
            }
            for part, counts in sorted(kernels.items())
        },
        "products": dict(products_by_precision(hlo).most_common()),
        "moves": {kind: dict(counts) for kind, counts in count_data_movement(hlo).items()},
    }


def format_results(results: Mapping[str, Any]) -> str:
    """Return the results as text tables."""
    products = [(name, str(count)) for name, count in results["products"].items()]
    blocks = [
        _header(results),
        _parts(results),
        format_table(("matrix products and convolutions, by operands", "count"), products),
        _data_movement(results),
    ]
    return "\n\n".join(blocks)


def _header(results: Mapping[str, Any]) -> str:
    memory = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in results["memory"].items())
    flops, traffic = results["flops"], results["bytes"]
    lines = [
        f"{results['method']} on {results['data']}, {results['encoder']}, {results['dtype']}:"
        f" {results['contexts']} contexts of {results['pairs']} pairs on {results['devices']} x"
        f" {results['device']}",
        f"compiled in {results['seconds']:.0f} s by jax {results['jax']}; of one device:",
        f"  memory, GB: {memory}",
        f"  TFLOP: {flops['products'] / 1e12:.3f} in matrix products and convolutions"
        + (f", {flops['xla'] / 1e12:.3f} in total by XLA's count" if flops["xla"] else ""),
        f"  GB read and written: {traffic['kernels'] / 1e9:.1f} as the sum over kernels"
        + (f", {traffic['xla'] / 1e9:.1f} by XLA's count" if traffic["xla"] else ""),
        f"  kernels: {results['kernels']:,}",
    ]
    if results["milliseconds"] is not None:
        lines.append(f"  milliseconds, estimated by the compiler: {results['milliseconds']:.2f}")
    return "\n".join(lines)


def _parts(results: Mapping[str, Any]) -> str:
    header = ("part", "kernels", "GB")
    rows = [
        (part, f"{row['kernels']:,}", f"{row['bytes'] / 1e9:.2f}")
        for part, row in results["parts"].items()
    ]
    if results["milliseconds"] is None:
        return format_table(header, rows)
    times = [f"{row['milliseconds']:.2f}" for row in results["parts"].values()]
    timed = [(*row, time) for row, time in zip(rows, times, strict=True)]
    return format_table((*header, "estimated ms"), timed)


def _data_movement(results: Mapping[str, Any]) -> str:
    rows = [
        (kind, f"{counts['count']:,}", f"{counts['bytes'] / 1e9:.3f}")
        for kind, counts in results["moves"].items()
    ]
    return with_notes(
        format_table(("kernels that only move data", "count", "GB written"), rows),
        "transposes change the memory layout, conversions only the precision, copies neither;"
        " prefetches are asynchronous copies between a TPU's memories.",
    )


def _milliseconds(cycles: int, clock: float | None) -> float | None:
    return None if clock is None else round(1e3 * cycles / clock, 3)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
