"""Comparison of the losses that two training runs logged.

python -m tests.same_losses A/metrics.jsonl B/metrics.jsonl
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

LIMIT = 1e-5

Losses = Mapping[tuple[int, str], float]  # by step and name


def main(argv: Sequence[str]) -> int:
    """Compare two files; return the exit status, 1 if they disagree."""
    parser = argparse.ArgumentParser(prog="python -m tests.same_losses", description=__doc__)
    parser.add_argument("files", nargs=2, type=Path, metavar="METRICS")
    first, second = map(read_losses, parser.parse_args(argv[1:]).files)
    error = find_mismatch(first, second)
    if error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    largest = max(relative_difference(first[key], second[key]) for key in first)
    print(f"{len(first)} losses agree; the largest relative difference is {largest:.1e}")
    return 0


def read_losses(path: Path) -> Losses:
    """Read every value named "loss" or "loss_..." of a metrics.jsonl file."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {
        (line["step"], name): value
        for line in lines
        for name, value in line.items()
        if name == "loss" or name.startswith("loss_")
    }


def find_mismatch(first: Losses, second: Losses, limit: float = LIMIT) -> str | None:
    """Describe the first loss that is missing or differs; return None if all agree."""
    if not first:
        return "the first file has no losses"
    for step, name in sorted(first.keys() | second.keys()):
        where = f"step {step}, {name}"
        for losses, file in ((first, "first"), (second, "second")):
            if (step, name) not in losses:
                return f"{where}: missing in the {file} file"
        a, b = first[step, name], second[step, name]
        difference = relative_difference(a, b)
        if not difference <= limit:  # also if NaN
            return f"{where}: {a} and {b} differ by {difference:.1e}, more than {limit:.0e}"
    return None


def relative_difference(a: float, b: float) -> float:
    """Return |a - b| over the larger magnitude; 0 for equal values, NaN if either is NaN."""
    return 0.0 if a == b else abs(a - b) / max(abs(a), abs(b))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
