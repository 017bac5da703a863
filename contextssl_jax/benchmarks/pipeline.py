"""Measure the throughput of the data pipeline in pairs per second, without training.

    python -m contextssl_jax.benchmarks.pipeline --config=cifar10_crop_blur

Prints one JSON line with the median and the range over several time windows.
"""

import json
import statistics
import sys
import time
from collections.abc import Sequence

from contextssl_jax.config import parse_command_line
from contextssl_jax.data.contexts import read_batches
from contextssl_jax.errors import UserError
from contextssl_jax.experiment import build_experiment

_WINDOWS, _SECONDS = 7, 2.0


def main(argv: Sequence[str]) -> int:
    """Measure the data pipeline of the command line's config."""
    try:
        config = parse_command_line(argv, ("train",)).config
        data = config.data
        batches = build_experiment(config).batches
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    reader = read_batches(batches, 0, data.threads, data.prefetch)
    next(reader)
    rates = []
    for _ in range(_WINDOWS):
        start, pairs = time.perf_counter(), 0
        while time.perf_counter() - start < _SECONDS:
            next(reader)
            pairs += data.contexts * data.pairs
        rates.append(pairs / (time.perf_counter() - start))
    result = {
        "pairs_per_second": round(statistics.median(rates)),
        "range": [round(min(rates)), round(max(rates))],
        "data": data.name,
        "contexts": data.contexts,
        "pairs": data.pairs,
        "threads": data.threads,
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
