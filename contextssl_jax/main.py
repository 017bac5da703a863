"""The one command: python -m contextssl_jax.main --config=configs/cifar10_crop_blur.py."""

import logging
import sys
from collections.abc import Callable, Sequence

from ml_collections import ConfigDict

from contextssl_jax.config import parse_command_line
from contextssl_jax.errors import UserError
from contextssl_jax.train import train

MODES: dict[str, Callable[[ConfigDict, str], None]] = {"train": train}


def main(argv: Sequence[str]) -> int:
    """Does what the command line says; returns the exit status, 2 for a mistake in it."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    logging.getLogger("contextssl_jax").setLevel(logging.INFO)
    try:
        config, workdir, mode = parse_command_line(argv, tuple(MODES))
        MODES[mode](config, workdir)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
