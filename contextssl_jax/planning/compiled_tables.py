"""Formatting of the results of a compilation as text: estimates, memory, kernels, collectives."""

from collections.abc import Mapping
from typing import Any

from contextssl_jax.planning.tables import format_seconds, format_table, with_notes

_ESTIMATES = {
    "compiler": "estimated by the compiler, not measured",
    "roofline": "estimated as the sum of the kernels' rooflines, not measured",
}
_NOTES = {
    "compiler": "estimated ms: the compiler's own estimate in cycles, for kernels without"
    " collectives, so a lower bound on several chips. share of peak: of these, what the products"
    " take at the chip's peak rate, those with zeros of packed kernels included.",
    "roofline": "estimated ms: for each kernel, the time for its bytes at the chip's memory"
    " bandwidth, or that of its products at the peak rate if that is longer; without launches and"
    " the interconnect, so a lower bound. share of peak: of these, what the products take at the"
    " peak rate.",
}
_FUSION = "A fusion belongs to the part of its result."


def format_results(results: Mapping[str, Any]) -> str:
    """Return the results as text tables."""
    products = [(name, str(count)) for name, count in results["products"].items()]
    blocks = [
        f"{_step(results)}\n{_figures(results)}",
        _parts(results),
        _collectives(results),
        format_table(("matrix products and convolutions, by operands", "count"), products),
        _data_movement(results),
    ]
    return "\n\n".join(filter(None, blocks))


def format_estimate(estimate: Mapping[str, Any], steps: int) -> str:
    """Return the estimate of a plan, which is of one step, as text, with the time of the run.

    Args:
      estimate: results of compilation, and "run_seconds".
      steps: number of steps of the run.
    """
    title = f"Estimate of the compiler for chips that are not there: {_devices(estimate)}"
    run = f"  run of {steps:,} steps at this rate: {format_seconds(estimate['run_seconds'])}"
    notes = (
        _NOTES[estimate["estimate"]],
        "run: its steps only, without waits for data, checkpoints, the monitor and reports."
        " contextssl_jax.benchmarks.compiled prints the estimate by part of the step.",
    )
    figures = with_notes(f"{title}\n{_figures(estimate)}\n{run}", *notes)
    return "\n\n".join(filter(None, (figures, _collectives(estimate))))


def _step(results: Mapping[str, Any]) -> str:
    return (
        f"{results['method']} on {results['data']}, {results['encoder']}, {results['dtype']}:"
        f" {results['contexts']} contexts of {results['pairs']} pairs on {_devices(results)}"
    )


def _devices(results: Mapping[str, Any]) -> str:
    return f"{results['devices']} x {results['device']}"


def _figures(results: Mapping[str, Any]) -> str:
    memory = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in results["memory"].items())
    flops, traffic = results["flops"], results["bytes"]
    lines = [
        f"compiled in {results['seconds']:.0f} s by jax {results['jax']}; of one device:",
        f"  memory, GB: {memory}",
        f"  TFLOP: {flops['products'] / 1e12:.3f} in matrix products and convolutions"
        + (f", {flops['xla'] / 1e12:.3f} in total by XLA's count" if flops["xla"] else ""),
        f"  GB read and written: {traffic['kernels'] / 1e9:.1f} as the sum over kernels"
        + (f", {traffic['xla'] / 1e9:.1f} by XLA's count" if traffic["xla"] else ""),
        f"  kernels: {results['kernels']:,}",
        f"  milliseconds, {_ESTIMATES[results['estimate']]}: {results['milliseconds']:.2f},"
        f" {results['peak_share']:.0%} of the peak rate",
    ]
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
    return with_notes(format_table(header, rows), f"{_NOTES[results['estimate']]} {_FUSION}")


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
