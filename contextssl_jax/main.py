"""The one command: python -m contextssl_jax.main --config=configs/cifar10_crop_blur.py."""

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax

from contextssl_jax.config import Command, parse_command_line
from contextssl_jax.distributed.process_monitor import ProcessMonitor
from contextssl_jax.distributed.processes import join_processes
from contextssl_jax.errors import SharedError, UserError
from contextssl_jax.planning.plan import plan
from contextssl_jax.reports.command import evaluate_checkpoint
from contextssl_jax.run.metadata import collect_metadata
from contextssl_jax.storage.paths import reraise_io_errors
from contextssl_jax.train import train

MODES: dict[str, Callable[[Command], None]] = {
    "train": lambda command: train(
        command.config,
        command.workdir,
        partial(collect_metadata, command.config, command.argv, command.deterministic),
    ),
    "eval": lambda command: evaluate_checkpoint(command.config, command.workdir, command.step),
    "plan": lambda command: plan(
        command.config, command.devices or 1, command.utilisation or 0.35, command.out
    ),
}
_MISTAKE, _FAILURE = 2, 1
_EXPLAINED = 5  # seconds until a lost process is known


def main(argv: Sequence[str]) -> int:
    """Does what the command line says; returns the exit status, 2 for a mistake in it."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    logging.getLogger("contextssl_jax").setLevel(logging.INFO)
    for library in ("absl", "asyncio"):  # what they tell of an error is raised as well
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        command = parse_command_line(argv, tuple(MODES))
        if command.step is not None and command.mode != "eval":
            raise UserError(
                "--step: is for --mode=eval; training resumes from the newest checkpoint"
            )
        if command.mode != "plan" and any((command.devices, command.utilisation, command.out)):
            raise UserError("--devices, --utilisation, --out: are for --mode=plan")
        if command.deterministic:  # before anything asks for a device
            flags = os.environ.get("XLA_FLAGS", "")
            os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
        peers = join_processes() if command.mode != "plan" else None
        if peers is not None:
            _together(peers, command)
        _run(command)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return _MISTAKE
    return 0


def _run(command: Command) -> None:
    with reraise_io_errors(command.workdir):
        MODES[command.mode](command)


def _tell_unraisable(told: Any) -> None:
    """Prints what could not be raised, but for an echo: a failed read or write, which has been
    raised and told, leaves callbacks to an event loop that is closed by then."""
    if not (isinstance(told.exc_value, RuntimeError) and "loop is closed" in str(told.exc_value)):
        sys.__unraisablehook__(told)


def _together(peers: ProcessMonitor, command: Command) -> None:
    """Runs beside other processes, and ends this one so that they learn how it ended."""
    index = jax.process_index()
    if index:
        logging.getLogger("contextssl_jax").setLevel(logging.WARNING)
    status, failure = 0, None
    try:
        _run(command)
    except SharedError as error:
        status = _MISTAKE
        if not index:
            print(f"error: {error}", file=sys.stderr)
    except UserError as error:
        status, failure = _MISTAKE, f"process {index} ended: {error}"
        print(f"error: {error}", file=sys.stderr)
    except BaseException as error:
        if isinstance(error, jax.errors.JaxRuntimeError):
            time.sleep(_EXPLAINED)  # likely for want of a process, which the watch tells
        status, failure = _FAILURE, f"process {index} failed: {type(error).__name__}: {error}"
        traceback.print_exc()
    peers.leave(failure)
    if failure is None:
        jax.distributed.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # the runtime would else wait for the others first


if __name__ == "__main__":
    sys.unraisablehook = _tell_unraisable
    sys.exit(main(sys.argv))
