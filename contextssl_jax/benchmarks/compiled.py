"""Compile the train step for an accelerator that this machine does not have, and print its cost.

    python -m contextssl_jax.benchmarks.compiled --config=cifar10_crop_blur --chip=h100

Requires XLA's compiler for NVIDIA GPUs (pip install 'contextssl-jax[compile-gpu]') or for TPUs
('contextssl-jax[compile-tpu]'), but no data and no accelerator. GPU kernels are not autotuned,
which requires a GPU. Milliseconds are estimates, not measurements: the compiler's own for TPUs, and
for GPUs the sum over kernels of the time at the peak memory bandwidth or rate of products.
--devices=N compiles for N chips under shard_map, and --out=FILE writes the results as JSON.
"""

import json
import resource
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from contextssl_jax.config import parse_command_line
from contextssl_jax.errors import Parser, UserError
from contextssl_jax.planning.compilation import compile_step
from contextssl_jax.planning.isolation import run_isolated
from contextssl_jax.planning.tables import format_table, with_notes
from contextssl_jax.planning.targets import TARGETS, check_installed
from contextssl_jax.storage.files import json_output

_IN_PROCESS = "--in-process"
_ESTIMATES = {
    "compiler": "estimated by the compiler, not measured",
    "roofline": "estimated as the sum of the kernels' rooflines, not measured",
}
_NOTES = {
    "compiler": "estimated ms: the compiler's own estimate in cycles. share of peak: of these, what"
    " the products take at the chip's peak rate. A fusion belongs to the part of its result.",
    "roofline": "estimated ms: for each kernel, the time for its bytes at the chip's memory"
    " bandwidth, or that of its products at the peak rate if that is longer; without launches and"
    " the interconnect, so a lower bound. share of peak: of these, what the products take at the"
    " peak rate. A fusion belongs to the part of its result.",
}


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


def format_results(results: Mapping[str, Any]) -> str:
    """Return the results as text tables."""
    products = [(name, str(count)) for name, count in results["products"].items()]
    blocks = [
        _header(results),
        _parts(results),
        _collectives(results),
        format_table(("matrix products and convolutions, by operands", "count"), products),
        _data_movement(results),
    ]
    return "\n\n".join(filter(None, blocks))


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
    lines.append(
        f"  milliseconds, {_ESTIMATES[results['estimate']]}: {results['milliseconds']:.2f},"
        f" {results['peak_share']:.0%} of the peak rate"
    )
    return "\n".join(lines)


def _parts(results: Mapping[str, Any]) -> str:
    rows = [
        (
            part,
            f"{row['kernels']:,}",
            f"{row['bytes'] / 1e9:.2f}",
            f"{row['flops'] / 1e12:.3f}",
            f"{row['milliseconds']:.2f}",
            f"{row['peak_share']:.0%}",
        )
        for part, row in results["parts"].items()
    ]
    header = ("part", "kernels", "GB", "TFLOP", "estimated ms", "share of peak")
    return with_notes(format_table(header, rows), _NOTES[results["estimate"]])


def _collectives(results: Mapping[str, Any]) -> str | None:
    rows = [
        (
            name,
            f"{row['count']:,}",
            f"{row['bytes'] / 1e6:.3f}",
            f"{row['overlapped']:,}",
            f"{row['overlapped_bytes'] / 1e6:.3f}",
        )
        for name, row in results["collectives"].items()
    ]
    if not rows:
        return None
    header = ("collectives", "count", "MB sent", "overlapped", "MB sent")
    return with_notes(
        format_table(header, rows),
        "MB that one device sends in ring algorithms. overlapped: asynchronous, with kernels"
        " between start and end.",
    )


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


if __name__ == "__main__":
    sys.exit(main(sys.argv))
