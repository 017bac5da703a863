"""Compare the rendering rate of objects3d with the rate at which a training step uses views.

    python -m contextssl_jax.benchmarks.rendering --config=quickstart

Prints one JSON line with medians. Renders and training steps, which use rendered views, alternate.
"""

import json
import statistics
import sys
import time
from collections.abc import Sequence

import jax
import numpy as np

from contextssl_jax.config import parse_command_line
from contextssl_jax.errors import UserError
from contextssl_jax.experiment import build_experiment

_REPEATS, _WARM_UP = 9, 1


def main(argv: Sequence[str]) -> int:
    """Measure the command line's config, with a pool of the size of a batch."""
    try:
        config = parse_command_line(argv, ("train",)).config
        if config.data.name != "objects3d":
            raise UserError(
                f"--config.data.name: {config.data.name!r} is not rendered. Use 'objects3d'."
            )
        config.objects3d.update(pool=2, train=config.data.contexts * config.data.pairs)
        config.train.parallel = "jit"
        experiment = build_experiment(config)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    dataset, views = experiment.dataset, 2 * config.objects3d.train
    rng = np.random.default_rng(0)
    objects = rng.integers(0, dataset.splits["test"].size, views)
    record, transform_params = dataset.splits["test"].draw(rng, objects, 1)
    inputs = jax.device_put((jax.tree.map(lambda leaf: leaf[:, 0], record), transform_params[:, 0]))
    render = jax.jit(dataset.render)
    parallel = experiment.parallel
    state, key_data = parallel.place(experiment.init()), parallel.replicate(experiment.key_data)
    batch = parallel.shard(experiment.batches[0])
    render_times, step_times = [], []
    for _ in range(_WARM_UP + _REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(render(*inputs))
        rendered = time.perf_counter()
        state, metrics = experiment.step(state, batch, key_data)
        jax.block_until_ready((state, metrics))
        render_times.append(rendered - start)
        step_times.append(time.perf_counter() - rendered)
    render_seconds, step_seconds = (
        statistics.median(times[_WARM_UP:]) for times in (render_times, step_times)
    )
    result = {
        "drawn_per_second": round(views / render_seconds, 1),
        "taken_per_second": round(views / step_seconds, 1),
        "drawn_to_taken": round(step_seconds / render_seconds, 2),
        "side": config.objects3d.side,
        "samples": config.objects3d.samples,
        "views": views,
        "encoder": config.model.encoder,
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "jax": jax.__version__,
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
