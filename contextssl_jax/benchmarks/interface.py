"""Measure the Python interface: throughput of `embed`, and the time to a first embedding.

    python -m contextssl_jax.benchmarks.interface --model=objects3d-small

`embed` takes images on the host, checks them, and returns NumPy arrays; it is compared with the
compiled forward pass alone, on images that are already on the devices, in alternation. The time to
a first embedding is that of a new process, from its first import, with a context; the second of two
such processes is warm. Prints one JSON line.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import jax
import numpy as np

from contextssl_jax.errors import Parser, UserError
from contextssl_jax.interface import Model, load

_ROUNDS, _BATCH = 9, 256
_FIRST = """
import time
start = time.perf_counter()
import numpy as np
import contextssl_jax as cssl
model = cssl.load({model!r})
images = np.zeros((model.card.max_pairs, *[model.card.image_size] * 2, 3), np.uint8)
model.embed(images, model.context(images, images))
print(time.perf_counter() - start)
"""


def main(argv: Sequence[str]) -> int:
    """Run the command line and return the exit status."""
    try:
        parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--model", default="objects3d-small", help="name or path")
        parser.add_argument("--images", type=int, default=2048, help="images of one measurement")
        options = parser.parse_args(argv[1:])
        model = load(options.model, batch=_BATCH)
    except (UserError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    count = -(-options.images // _BATCH) * _BATCH
    embed, bare = _seconds(model, count)
    first = [_first_embedding(options.model) for _ in range(2)]
    result = {
        "model": model.card.name,
        "images": count,
        "embed_images_per_second": round(count / embed),
        "forward_images_per_second": round(count / bare),
        "ratio": round(bare / embed, 3),
        "first_embedding_seconds": [round(seconds, 2) for seconds in first],
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "jax": jax.__version__,
    }
    print(json.dumps(result))
    return 0


def _seconds(model: Model, count: int) -> tuple[float, float]:
    """Return the median seconds of `embed`, and of its forward pass alone."""
    rng, side = np.random.default_rng(0), model.card.image_size
    images = rng.integers(0, 256, (count, side, side, 3), np.uint8)
    context = model.context(images[: model.card.max_pairs], images[: model.card.max_pairs])
    tokens = np.int32(context.tokens)
    forward = partial(model._passes.embed_images, model.variables, context._encoded, tokens)
    batches = [jax.device_put(batch) for batch in np.split(images, count // _BATCH)]

    def bare() -> None:
        jax.block_until_ready([forward(batch, None) for batch in batches])

    times: dict[Callable[[], object], list[float]] = {}
    runs: tuple[Callable[[], object], ...] = (lambda: model.embed(images, context), bare)
    for _ in range(_ROUNDS):
        for run in runs:
            start = time.perf_counter()
            run()
            times.setdefault(run, []).append(time.perf_counter() - start)
    embed, alone = (statistics.median(times[run][1:]) for run in runs)
    return embed, alone


def _first_embedding(model: str) -> float:
    """Return the seconds that a new process needs until its first embedding."""
    script = _FIRST.format(model=model)
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    return float(found.stdout)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
