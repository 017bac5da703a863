"""Formatting of a plan as text tables."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

_WIDTH = 96  # characters per line of notes
_DIRECTIONS = ("forward", "backward")


def format_plan(plan: Mapping[str, Any]) -> str:
    """Return the plan as tables, with notes that explain their figures."""
    blocks = [
        _header(plan["run"]),
        _parameters(plan["parameters"]),
        _memory(plan["memory"], plan["compiled"]),
        _flops(plan["flops"]),
        _traffic(plan["traffic"], plan["run"]["devices"]),
        _chips(plan),
    ]
    return "\n\n".join(filter(None, blocks))


def _header(run: Mapping[str, Any]) -> str:
    contexts_per_device = run["contexts"] // run["devices"]
    sharded = ", sharded optimizer state" if run["optimizer_shards"] > 1 else ""
    divisors = [n for n in range(1, run["contexts"] + 1) if run["contexts"] % n == 0]
    data = "" if run["reads_data"] else "\nshapes of the data set only, no data read"
    return (
        f"{run['method']} on {run['data']}: {run['steps']:,} steps in {run['dtype']}, each of"
        f" {_plural(run['contexts'], 'context')} of {run['pairs']} pairs\n"
        f"{_plural(run['devices'], 'device')} ({run['parallel']}{sharded}),"
        f" {_plural(contexts_per_device, 'context')} per device\n"
        f"--config.data.contexts is divisible by {_join(divisors)} devices{data}"
    )


def _parameters(parameters: Mapping[str, int]) -> str:
    rows = [(part, f"{n:,}") for part, n in parameters.items()]
    return format_table(
        ("parameters", "count"), [*rows, ("total", f"{sum(parameters.values()):,}")]
    )


def _memory(memory: Mapping[str, Any], compiled: Mapping[str, float]) -> str:
    unit, scale = _unit(memory["all"]["unfused"], "B")
    pairs = [(name, (size, size)) for name, size in memory["held"].items()]
    pairs += [
        (f"saved: {part}", (sizes["fused"], sizes["unfused"]))
        for part, sizes in memory["saved"].items()
    ]
    pairs.append(("total", (memory["all"]["fused"], memory["all"]["unfused"])))
    rows = [(name, *(f"{size / scale:,.2f}" for size in sizes)) for name, sizes in pairs]
    arguments, temporaries = (
        f"{compiled[key] / scale:,.2f} {unit}" for key in ("arguments", "temporaries")
    )
    return with_notes(
        format_table((f"memory of one device, {unit}", "fused", "unfused"), rows),
        "saved: values that the forward pass saves for the backward pass. unfused: all values that"
        " the backward pass uses, without compiler optimizations. fused: elementwise values are"
        " recomputed, which is close to what compilers for accelerators do. Temporary buffers are"
        " not included.",
        f"XLA for the CPU of this host, compiled in {compiled['seconds']:.0f} s: {arguments} of"
        f" state and batch, {temporaries} of temporaries. Programs for CPUs use more memory than"
        " those for accelerators, and a different implementation of the gradients of convolutions.",
    )


def _flops(flops: Mapping[str, Any]) -> str:
    unit, scale = _unit(flops["all"], "FLOP")
    rows = [
        (
            part,
            *(f"{counts[direction] / scale:,.2f}" for direction in _DIRECTIONS),
            f"{_sum(counts) / flops['all']:.1%}",
        )
        for part, counts in flops["parts"].items()
    ]
    sums = [
        sum(counts[direction] for counts in flops["parts"].values()) for direction in _DIRECTIONS
    ]
    rows.append(("total", *(f"{n / scale:,.2f}" for n in sums), "100.0%"))
    ours, xla = flops["check"]["here"], flops["check"]["xla"]
    return with_notes(
        format_table((f"{unit} of a step, all devices", *_DIRECTIONS, "share"), rows),
        "Matrix products and convolutions, as accelerators compute them, without zeros of padding."
        f" On one device, with loops counted once: {ours / scale:,.2f} {unit} by this count,"
        f" {xla / scale:,.2f} by XLA's, which includes all arithmetic. The ratio is"
        f" {ours / xla:.3f}.",
    )


def _traffic(traffic: Mapping[str, Mapping[str, float]] | None, devices: int) -> str | None:
    if traffic is None:
        return None
    unit, scale = _unit(_sum(traffic["sent"]), "B")
    totals = {"asked": "total, requested by the step", "sent": "total, in the compiled program"}
    rows = []
    for source, sizes in traffic.items():
        with_total = {**sizes, totals[source]: _sum(sizes)}
        rows += [(name, f"{size / scale:,.3f}") for name, size in with_total.items()]
    ratio = _sum(traffic["sent"]) / _sum(traffic["asked"])
    return with_notes(
        format_table((f"sent by one device in a step, {unit}", ""), rows),
        f"In ring algorithms over {devices} devices, which are optimal in bytes. parameters: gather"
        " of the shards. statistics: batch statistics. loss: collectives of the loss and of"
        " metrics, such as the gather of negatives. Ratio of the compiled program to the step:"
        f" {ratio:.3f}.",
    )


def _chips(plan: Mapping[str, Any]) -> str:
    run, needed = plan["run"], plan["memory"]["all"]
    rows = []
    for chip in plan["chips"]:
        fits = chip["fits"]
        low, high, available = (size / 1e9 for size in (*needed.values(), chip["memory"]))
        rows.append(
            (
                chip["name"],
                str(chip["hosts"]),
                f"{chip['peak'] / 1e12:.0f}",
                f"{low:.1f} to {high:.1f} of {available:.0f}",
                "yes" if fits["unfused"] else "maybe" if fits["fused"] else "no",
                format_seconds(chip["step_seconds"]),
                format_seconds(chip["run_seconds"]),
                format_seconds(chip["update_seconds"]),
            )
        )
    header = ("chip", "hosts", "TFLOP/s", "memory, GB", "fits", "step", "run", "update only")
    return with_notes(
        format_table(header, rows),
        "Times are arithmetic from the chips' peak rates at --utilisation; see --chip for an"
        " estimate.",
        f"TFLOP/s: peak rate of {_describe_products(run)}.",
        f"step, run: time of the arithmetic at an assumed {run['utilisation']:.0%} of the peak"
        " rate (--utilisation). update only: time to read and write parameters and moments"
        " and to read gradients once, a part of every step; with a sharded optimizer state, those"
        " of one device's shards, and the gathered parameters. If that is a large part of the"
        " step, the utilisation is not achievable: use fewer devices or a larger batch.",
    )


def _describe_products(run: Mapping[str, Any]) -> str:
    """Return which products a run's peak rates are of, and how chips compute those of float32."""
    if run["dtype"] == "bfloat16":
        return "dense bfloat16 products"
    how = {
        "default": "one product of bfloat16 on TPUs, TF32 on GPUs",
        "high": "three products of bfloat16 on TPUs, TF32 on GPUs",
        "highest": "six products of bfloat16 on TPUs, FP32 without tensor cores on GPUs",
    }[run["precision"]]
    return (
        f"float32 products at the precision {run['precision']!r} ({how}); see"
        " --config.model.precision and --config.model.dtype"
    )


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align the first column to the left and the other columns to the right."""
    aligns = ["left", *["right"] * (len(header) - 1)]
    return tabulate(rows, header, "plain", disable_numparse=True, colalign=aligns)


def with_notes(table: str, *notes: str) -> str:
    """Return a table followed by wrapped notes."""
    return "\n".join([table, *(textwrap.fill(note, _WIDTH) for note in notes)])


def format_seconds(seconds: float) -> str:
    """Return a time in the largest unit of which it has at least one."""
    units = (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3))
    unit, size = next((u for u in units if seconds >= u[1]), ("µs", 1e-6))
    return f"{seconds / size:.1f} {unit}"


def _unit(largest: float, name: str) -> tuple[str, float]:
    """Return the unit in which the largest figure has at least two digits, and its size."""
    prefixes = (("G", 1e9), ("M", 1e6), ("k", 1e3))
    found = ((prefix + name, size) for prefix, size in prefixes if largest >= 10 * size)
    return next(found, (name, 1.0))


def _sum(figures: Mapping[str, float]) -> float:
    return sum(figures.values())


def _plural(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("s" if n != 1 else "")


def _join(numbers: Sequence[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} or {last}" if first else last
