"""Measure the time of a training step, on a batch that is already on the devices.

    python -m contextssl_jax.benchmarks.step --config=cifar10_crop_blur \\
        --config.data.name=synthetic --config.synthetic.side=32 --config.synthetic.train=1024

The step includes the rendering of views. Prints one JSON line with medians over steps.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from contextssl_jax.config import parse_command_line
from contextssl_jax.errors import UserError
from contextssl_jax.experiment import Experiment, build_experiment
from contextssl_jax.run.host_memory import reuse_freed_memory

_WARM_UP = 2


def main(argv: Sequence[str]) -> int:
    """Measure the training step of the command line's config."""
    try:
        config = parse_command_line(argv, ("train",)).config
        experiment = build_experiment(config)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(measure_step(config, experiment)))
    return 0


def measure_step(config: ConfigDict, experiment: Experiment, steps: int = 7) -> dict[str, Any]:
    """Return the median time of a training step after two others, by name and in seconds.

    Args:
      config: the options.
      experiment: that of the config.
      steps: number of steps that the median is over.
    """
    parallel = experiment.parallel
    state = parallel.place(experiment.init())
    constants = parallel.replicate((experiment.key_data, experiment.images))
    batch = parallel.shard(experiment.batches[0])
    times = []
    for _ in range(_WARM_UP + steps):
        start = time.perf_counter()
        state, metrics = experiment.step(state, batch, *constants)
        jax.block_until_ready((state, metrics))
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[_WARM_UP:])
    views = 2 * config.data.contexts * config.data.pairs
    device = jax.devices()[0]
    result = {
        "seconds_per_step": round(seconds, 5),
        "range": [round(f(times[_WARM_UP:]), 5) for f in (min, max)],
        "first_step_seconds": round(times[0], 1),
        "views_per_second": round(views / seconds, 1),
        "pairs": views // 2,
        "encoder": config.model.encoder,
        "width": config.model.transformer.width,
        "dtype": config.model.dtype,
        "devices": f"{jax.device_count()} x {device.device_kind}",
        "parallel": parallel.mode,
        "jax": jax.__version__,
    }
    if stats := device.memory_stats():
        result["peak_memory_gib"] = round(stats["peak_bytes_in_use"] / 2**30, 2)
    return result


if __name__ == "__main__":
    reuse_freed_memory(os.environ)  # before JAX starts its threads
    sys.exit(main(sys.argv))
