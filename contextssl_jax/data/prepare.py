"""Prepares a data set in a folder: python -m contextssl_jax.data.prepare --dataset=… --out=…."""

import argparse
import sys
from collections.abc import Sequence

from contextssl_jax.data.tfds_source import prepare_cifar10
from contextssl_jax.errors import UserError

_PREPARERS = {"cifar10": prepare_cifar10}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code, 2 for a mistake that the user can mend."""
    parser = argparse.ArgumentParser(
        prog="python -m contextssl_jax.data.prepare",
        description="Prepares a data set where there is a network, for use where there is none.",
    )
    parser.add_argument("--dataset", required=True, choices=sorted(_PREPARERS))
    parser.add_argument(
        "--out", required=True, metavar="FOLDER", help="what TFDS_DATA_DIR is then to name"
    )
    options = parser.parse_args(arguments)
    try:
        _PREPARERS[options.dataset](options.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.dataset} is ready in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
