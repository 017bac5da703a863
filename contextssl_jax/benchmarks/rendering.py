"""Views of objects3d drawn a second, beside what a training step takes of views already drawn.

    python -m contextssl_jax.benchmarks.rendering --config=configs/quickstart.py

Prints one JSON line: medians, measured in turns.
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

_TURNS, _WARM_UP = 9, 1


def main(argv: Sequence[str]) -> int:
    """Measures the command line's config, whose pool is made as small as a batch."""
    try:
        config = parse_command_line(argv, ("train",)).config
        if config.data.name != "objects3d":
            raise UserError(f"data.name: {config.data.name!r} is not drawn; take objects3d")
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
    shown = jax.device_put((jax.tree.map(lambda leaf: leaf[:, 0], record), transform_params[:, 0]))
    render = jax.jit(dataset.render)
    state = experiment.parallel.replicate(experiment.init())
    batch = experiment.parallel.shard(experiment.batches[0])
    drawing, stepping = [], []
    for _ in range(_WARM_UP + _TURNS):
        began = time.perf_counter()
        jax.block_until_ready(render(*shown))
        drawn = time.perf_counter()
        state, metrics = experiment.step(state, batch)
        jax.block_until_ready((state, metrics))
        drawing.append(drawn - began)
        stepping.append(time.perf_counter() - drawn)
    drawn_in, taken_in = (statistics.median(s[_WARM_UP:]) for s in (drawing, stepping))
    result = {
        "drawn_per_second": round(views / drawn_in, 1),
        "taken_per_second": round(views / taken_in, 1),
        "drawn_to_taken": round(taken_in / drawn_in, 2),
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
