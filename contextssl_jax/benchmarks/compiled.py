"""Compile the train step for an accelerator that this machine does not have, and print its cost.

    python -m contextssl_jax.benchmarks.compiled --config=cifar10_crop_blur --chip=h100

Requires XLA's compiler for NVIDIA GPUs (pip install 'contextssl-jax[compile-gpu]') or for TPUs
('contextssl-jax[compile-tpu]'), but no data and no accelerator. GPU kernels are not autotuned,
which requires a GPU. Milliseconds are estimates, not measurements: the compiler's own for TPUs, and
for GPUs the sum over kernels of the time at the peak memory bandwidth or rate of products.
--devices=N compiles for N chips under shard_map, and --out=FILE writes the results as JSON.
"""

import sys
from collections.abc import Sequence

from contextssl_jax.config import parse_command_line
from contextssl_jax.errors import run_command
from contextssl_jax.planning.compilation import compile_isolated
from contextssl_jax.planning.compiled_tables import format_results
from contextssl_jax.storage.files import json_output


def main(argv: Sequence[str]) -> int:
    """Compile the step of the command line's config, and print the results."""
    return run_command(_compile, argv)


def _compile(argv: Sequence[str]) -> None:
    command = parse_command_line(argv, ("plan",))
    with json_output(command.out) as write:
        results = compile_isolated(command)
        print(format_results(results))
        write(results)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
