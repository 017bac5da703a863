"""Prepares a data set in a folder: python -m contextssl_jax.data.prepare --dataset=… --out=…."""

import argparse
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import NamedTuple

from contextssl_jax.data.bench3d.prepare import prepare as prepare_3diebench
from contextssl_jax.data.tfds_source import prepare_cifar10
from contextssl_jax.errors import UserError


class Preparer(NamedTuple):
    """How a data set is prepared.

    Attributes:
      run: prepares it by the command line's options; returns lines to tell.
      needs: further options that must be given.
      takes: further options that may be given.
    """

    run: Callable[[Namespace], Sequence[str]]
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()


def _cifar10(options: Namespace) -> Sequence[str]:
    prepare_cifar10(options.out)
    return ()


def _3diebench(options: Namespace) -> Sequence[str]:
    side = 128 if options.side is None else options.side
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processes = options.processes or cores or 1
    return prepare_3diebench(options.source, options.lists, options.out, side, processes)


_PREPARERS = {
    "cifar10": Preparer(_cifar10),
    "3diebench": Preparer(_3diebench, ("source",), ("lists", "side", "processes")),
}
_OPTIONS = ("source", "lists", "side", "processes")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 2 for the user's mistake, 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m contextssl_jax.data.prepare",
        description="Prepares a data set for use where there is no network, or to be read faster.",
    )
    parser.add_argument("--dataset", required=True, choices=sorted(_PREPARERS))
    parser.add_argument(
        "--out",
        required=True,
        metavar="FOLDER",
        help="what TFDS_DATA_DIR is then to name; of 3diebench, --config.bench3d.path",
    )
    only = parser.add_argument_group("of 3diebench")
    only.add_argument("--source", metavar="FOLDER", help="what its archive unpacks to")
    only.add_argument(
        "--lists", metavar="FOLDER", help="of its splits; by default --source, or data within it"
    )
    only.add_argument("--side", type=int, help="of the views, pixels; by default 128")
    only.add_argument("--processes", type=int, help="that decode; by default one for each core")
    options = parser.parse_args(arguments)
    try:
        told = _prepare(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command prepares the rest", file=sys.stderr)
        return 130
    print(*told, f"{options.dataset} is ready in {options.out}", sep="\n")
    return 0


def _prepare(options: Namespace) -> Sequence[str]:
    """Checks which options were given, and prepares.

    Raises:
      UserError: one is missing, not for this data set, or too small; or what the preparer raises.
    """
    preparer = _PREPARERS[options.dataset]
    for name in _OPTIONS:
        value = getattr(options, name)
        if value is None and name in preparer.needs:
            raise UserError(f"--{name}: must be given to prepare {options.dataset}; see --help")
        if value is not None and name not in (*preparer.needs, *preparer.takes):
            raise UserError(f"--{name}: is not for {options.dataset}")
        if isinstance(value, int) and value < 1:
            raise UserError(f"--{name}: must be at least 1, not {value}")
    return preparer.run(options)


if __name__ == "__main__":
    sys.exit(main())
