"""A plan as text for a console."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH = 96  # of notes, characters
_WAYS = ("forward", "backward")


def show(plan: Mapping[str, Any]) -> str:
    """Returns the plan as tables of aligned columns, each with what its figures are."""
    blocks = [
        _head(plan["run"]),
        _parameters(plan["parameters"]),
        _memory(plan["memory"], plan["compiled"]),
        _flops(plan["flops"]),
        _traffic(plan["traffic"], plan["run"]["devices"]),
        _chips(plan),
    ]
    return "\n\n".join(filter(None, blocks))


def _head(run: Mapping[str, Any]) -> str:
    each = run["contexts"] // run["devices"]
    splits = [n for n in range(1, run["contexts"] + 1) if run["contexts"] % n == 0]
    read = "" if run["reads_data"] else "\nno data were read"
    return (
        f"{run['method']} on {run['data']}: {run['steps']:,} steps in {run['dtype']}, each of"
        f" {_several(run['contexts'], 'context')} of {run['pairs']} pairs\n"
        f"{_several(run['devices'], 'device')} ({run['parallel']}), {_several(each, 'context')}"
        f" each; data.contexts splits over {_listed(splits)} devices{read}"
    )


def _parameters(parameters: Mapping[str, int]) -> str:
    rows = [(part, f"{n:,}") for part, n in parameters.items()]
    return table(("parameters", "entries"), [*rows, ("all", f"{sum(parameters.values()):,}")])


def _memory(memory: Mapping[str, Any], compiled: Mapping[str, float]) -> str:
    unit, scale = _unit(memory["all"]["unfused"], "B")
    pairs = [(name, (size, size)) for name, size in memory["held"].items()]
    pairs += [
        (f"saved: {part}", (sizes["fused"], sizes["unfused"]))
        for part, sizes in memory["saved"].items()
    ]
    pairs.append(("all", (memory["all"]["fused"], memory["all"]["unfused"])))
    rows = [(name, *(f"{size / scale:,.2f}" for size in sizes)) for name, sizes in pairs]
    given, used = (f"{compiled[key] / scale:,.2f} {unit}" for key in ("arguments", "temporaries"))
    return noted(
        table((f"memory of one device, {unit}", "fused", "unfused"), rows),
        "saved: what the forward pass keeps for the backward pass. Unfused: all that this reads,"
        " before a compiler does anything. Fused: where all that is elementwise is computed again;"
        " compilers for accelerators come near to that. What lives for a moment comes on top.",
        f"XLA for this host's CPU, compiled in {compiled['seconds']:.0f} s: {given} of state and"
        f" batch, {used} of all else. CPU programs keep more than others, and write the gradients"
        " of convolutions otherwise.",
    )


def _flops(flops: Mapping[str, Any]) -> str:
    unit, scale = _unit(flops["all"], "FLOP")
    rows = [
        (part, *(f"{ways[way] / scale:,.2f}" for way in _WAYS), f"{_sum(ways) / flops['all']:.1%}")
        for part, ways in flops["parts"].items()
    ]
    sums = [sum(ways[way] for ways in flops["parts"].values()) for way in _WAYS]
    rows.append(("all", *(f"{n / scale:,.2f}" for n in sums), "100.0%"))
    here, xla = flops["check"]["here"], flops["check"]["xla"]
    return noted(
        table((f"{unit} of a step, all devices", *_WAYS, "share"), rows),
        "Matrix products and convolutions, as accelerators run them, without zeros of padding. One"
        f" device, loops counted once: {here / scale:,.2f} {unit} here, {xla / scale:,.2f} by XLA,"
        f" which counts all arithmetic: a ratio of {here / xla:.3f}.",
    )


def _traffic(traffic: Mapping[str, Mapping[str, float]] | None, devices: int) -> str | None:
    if traffic is None:
        return None
    unit, scale = _unit(_sum(traffic["sent"]), "B")
    titles = {"asked": "all, as the step asks", "sent": "all, in the compiled program"}
    rows = []
    for by, found in traffic.items():
        sizes = {**found, titles[by]: _sum(found)}
        rows += [(name, f"{size / scale:,.3f}") for name, size in sizes.items()]
    ratio = _sum(traffic["sent"]) / _sum(traffic["asked"])
    return noted(
        table((f"sent by one device in a step, {unit}", ""), rows),
        f"In rings of {devices} devices, which send least. statistics: of batches. loss: what the"
        f" objective and metrics ask for, such as negatives. Program to step: {ratio:.3f}.",
    )


def _chips(plan: Mapping[str, Any]) -> str:
    run, needed = plan["run"], plan["memory"]["all"]
    rows = []
    for chip in plan["chips"]:
        fits = chip["fits"]
        low, high, has = (size / 1e9 for size in (*needed.values(), chip["memory"]))
        rows.append(
            (
                chip["name"],
                str(chip["hosts"]),
                f"{chip['peak'] / 1e12:.0f}",
                f"{low:.1f} to {high:.1f} of {has:.0f}",
                "yes" if fits["unfused"] else "perhaps" if fits["fused"] else "no",
                _time(chip["step_seconds"]),
                _time(chip["run_seconds"]),
                _time(chip["update_seconds"]),
            )
        )
    header = ("chip", "hosts", "TFLOP/s", "memory, GB", "fits", "step", "run", "update alone")
    other = "" if run["dtype"] == "bfloat16" else f", and of bfloat16, not {run['dtype']}"
    return noted(
        table(header, rows),
        f"step, run: arithmetic alone, at {run['utilisation']:.0%} of the peak, which is assumed"
        f" (--utilisation){other}. update alone: to read and write parameters and moments and read"
        " gradients once, as every step has to. Where that is much of the step, the utilisation is"
        " out of reach: take fewer devices or a larger batch.",
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns: the first to the left, figures to the right."""
    lines = [header, *rows]
    first, *widths = (max(map(len, column)) for column in zip(*lines, strict=True))
    return "\n".join(
        "  ".join(
            [
                line[0].ljust(first),
                *(cell.rjust(n) for cell, n in zip(line[1:], widths, strict=True)),
            ]
        ).rstrip()
        for line in lines
    )


def noted(table: str, *notes: str) -> str:
    """Return a table with wrapped notes below it."""
    return "\n".join([table, *(textwrap.fill(note, _WIDTH) for note in notes)])


def _unit(largest: float, name: str) -> tuple[str, float]:
    """Return the unit in which the largest figure has two digits or more, and its size."""
    prefixes = (("G", 1e9), ("M", 1e6), ("k", 1e3))
    found = ((prefix + name, size) for prefix, size in prefixes if largest >= 10 * size)
    return next(found, (name, 1.0))


def _time(seconds: float) -> str:
    units = (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3))
    unit, size = next((u for u in units if seconds >= u[1]), ("µs", 1e-6))
    return f"{seconds / size:.1f} {unit}"


def _sum(figures: Mapping[str, float]) -> float:
    return sum(figures.values())


def _several(n: int, thing: str) -> str:
    return f"{n} {thing}" + ("s" if n != 1 else "")


def _listed(numbers: Sequence[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} or {last}" if first else last
