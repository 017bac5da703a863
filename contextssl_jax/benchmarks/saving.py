"""Measure how long a checkpoint stops the training, and how long its save takes.

    python -m contextssl_jax.benchmarks.saving --config=cifar10_crop_blur

Saves the initial state in a temporary folder. Prints one JSON line with medians over saves.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from contextssl_jax.config import parse_command_line
from contextssl_jax.errors import UserError
from contextssl_jax.experiment import Experiment, build_experiment
from contextssl_jax.run.checkpoint import Checkpoint, Checkpoints, initial_host_data
from contextssl_jax.run.finite import check_finite


def main(argv: Sequence[str]) -> int:
    """Measure the saves of the command line's config."""
    try:
        config = parse_command_line(argv, ("train",)).config
        experiment = build_experiment(config)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(measure_saving(config, experiment)))
    return 0


def measure_saving(config: ConfigDict, experiment: Experiment, saves: int = 3) -> dict[str, Any]:
    """Return the median seconds of a save, and those of them in which no step can start.

    Args:
      config: the options.
      experiment: that of the config.
      saves: number of saves that the medians are over, after one more.
    """
    parallel = experiment.parallel
    state = parallel.place(experiment.init())
    pauses, totals = [], []
    with tempfile.TemporaryDirectory() as folder:
        with Checkpoints(epath.Path(folder), 1) as checkpoints:
            for step in range(1 + saves):
                start = time.perf_counter()
                arrays = parallel.global_arrays(state)
                check_finite(step, arrays)
                checkpoints.save(Checkpoint(step, arrays, initial_host_data({})))
                pauses.append(time.perf_counter() - start)
                checkpoints.wait()
                totals.append(time.perf_counter() - start)
    return {
        "pause_seconds": round(statistics.median(pauses[1:]), 4),
        "range": [round(f(pauses[1:]), 4) for f in (min, max)],
        "seconds": round(statistics.median(totals[1:]), 3),
        "state_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(experiment.template())),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv))
