"""Measure the throughput of the data pipeline in pairs per second, without training.

    python -m contextssl_jax.benchmarks.pipeline --config=cifar10_crop_blur

Prints one JSON line with the median and the range over several time windows. The rate per CPU
second counts the processor time of all threads.
"""

import json
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from contextssl_jax.config import parse_command_line
from contextssl_jax.data.contexts import read_batches
from contextssl_jax.errors import UserError
from contextssl_jax.experiment import Experiment, build_experiment


def main(argv: Sequence[str]) -> int:
    """Measure the data pipeline of the command line's config."""
    try:
        config = parse_command_line(argv, ("train",)).config
        experiment = build_experiment(config)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(measure_pipeline(config, experiment)))
    return 0


def measure_pipeline(
    config: ConfigDict, experiment: Experiment, windows: int = 7, seconds: float = 2.0
) -> dict[str, Any]:
    """Return the median throughput of the pipeline over some time windows, by name.

    Args:
      config: the options.
      experiment: that of the config.
      windows: number of time windows.
      seconds: length of each.
    """
    data = config.data
    reader = read_batches(experiment.batches, 0, data.threads, data.prefetch)
    next(reader)
    rates, cpu_rates = [], []
    for _ in range(windows):
        start, cpu_start, pairs = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - start < seconds:
            next(reader)
            pairs += data.contexts * data.pairs
        rates.append(pairs / (time.perf_counter() - start))
        cpu_rates.append(2 * pairs / (time.process_time() - cpu_start))
    return {
        "pairs_per_second": round(statistics.median(rates)),
        "range": [round(min(rates)), round(max(rates))],
        "views_per_cpu_second": round(statistics.median(cpu_rates)),
        "data": data.name,
        "contexts": data.contexts,
        "pairs": data.pairs,
        "threads": data.threads,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv))
