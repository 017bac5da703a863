"""The one command: python -m contextssl_jax.main --config=configs/cifar10_crop_blur.py."""

import logging
import sys
from collections.abc import Callable, Sequence

from contextssl_jax.config import Command, parse_command_line
from contextssl_jax.errors import UserError
from contextssl_jax.evaluation.command import evaluate
from contextssl_jax.planning.plan import plan
from contextssl_jax.train import train

MODES: dict[str, Callable[[Command], None]] = {
    "train": lambda command: train(command.config, command.workdir),
    "eval": lambda command: evaluate(command.config, command.workdir, command.step),
    "plan": lambda command: plan(
        command.config, command.devices or 1, command.utilisation or 0.35, command.out
    ),
}


def main(argv: Sequence[str]) -> int:
    """Does what the command line says; returns the exit status, 2 for a mistake in it."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    logging.getLogger("contextssl_jax").setLevel(logging.INFO)
    try:
        command = parse_command_line(argv, tuple(MODES))
        if command.step is not None and command.mode != "eval":
            raise UserError(
                "--step: is for --mode=eval; training resumes from the newest checkpoint"
            )
        if command.mode != "plan" and any((command.devices, command.utilisation, command.out)):
            raise UserError("--devices, --utilisation, --out: are for --mode=plan")
        MODES[command.mode](command)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
