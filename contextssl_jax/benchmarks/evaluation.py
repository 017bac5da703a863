"""Seconds of a report by part, relative to one pass of the encoder over the same views.

    python -m contextssl_jax.benchmarks.evaluation --config=cifar10_crop_blur

The model is untrained, which does not affect the time. Compilation is included. Prints one JSON
line.
"""

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from contextssl_jax.config import parse_command_line
from contextssl_jax.errors import UserError
from contextssl_jax.evaluation.evaluate import build_evaluation
from contextssl_jax.experiment import Experiment, build_experiment


def main(argv: Sequence[str]) -> int:
    """Time the report of the command line's config and return the exit status."""
    try:
        config = parse_command_line(argv, ("eval",)).config
        result = measure_evaluation(config, build_experiment(config))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result))
    return 0


def measure_evaluation(config: ConfigDict, experiment: Experiment) -> dict[str, Any]:
    """Return the seconds of a report of the untrained model, in all and by part.

    Args:
      config: the options.
      experiment: that of the config.

    Raises:
      UserError: an option of the evaluation is invalid.
    """
    evaluate = build_evaluation(config, experiment)
    variables = experiment.init().variables
    began = time.perf_counter()
    provenance = evaluate(variables, 0).report["provenance"]
    total, parts = time.perf_counter() - began, provenance["seconds"]
    return {
        "seconds": round(total, 1),
        "of_one_encoding_pass": round(total / parts["encoding"], 2),
        "parts": {name: round(seconds, 1) for name, seconds in parts.items()},
        "views": sum(views["views"] for views in provenance["views"].values()),
        "probe_steps": config.eval.probe.steps,
        "draws": config.eval.draws,
        "encoder": config.model.encoder,
        "width": config.model.transformer.width,
        "dtype": config.model.dtype,
        "device": provenance["device"],
        "jax": jax.__version__,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv))
