"""Prepare a data set in a folder: python -m contextssl_jax.data.prepare --dataset=… --out=…."""

import argparse
import logging
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import NamedTuple

from contextssl_jax.data.bench3d.layouts import DEFAULT, LAYOUTS
from contextssl_jax.data.bench3d.prepare import prepare as prepare_3diebench
from contextssl_jax.data.tfds_source import prepare_cifar10
from contextssl_jax.errors import UserError
from contextssl_jax.progress import task


class Preparer(NamedTuple):
    """How a data set is prepared.

    Attributes:
      run: prepares it by the options of the command line; returns lines to print.
      required: options that are required.
      optional: options that are optional.
    """

    run: Callable[[Namespace], Sequence[str]]
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


def _cifar10(options: Namespace) -> Sequence[str]:
    prepare_cifar10(options.out)
    return ()


def _3diebench(options: Namespace) -> Sequence[str]:
    side = 128 if options.side is None else options.side
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processes = options.processes or cores or 1
    layout = options.layout or DEFAULT
    return prepare_3diebench(options.source, options.lists, options.out, side, processes, layout)


_PREPARERS = {
    "cifar10": Preparer(_cifar10),
    "3diebench": Preparer(_3diebench, ("source",), ("lists", "side", "processes", "layout")),
}
_OPTIONS = ("source", "lists", "side", "processes", "layout")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 2 for a user error, 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m contextssl_jax.data.prepare",
        description="Prepares a data set for use without a network, or for faster reading.",
    )
    parser.add_argument("--dataset", required=True, choices=sorted(_PREPARERS))
    parser.add_argument(
        "--out",
        required=True,
        metavar="FOLDER",
        help="output folder: the later TFDS_DATA_DIR, or --config.bench3d.path of 3diebench",
    )
    group = parser.add_argument_group("options of 3diebench")
    group.add_argument("--source", metavar="FOLDER", help="folder of the unpacked archive")
    group.add_argument(
        "--lists",
        metavar="FOLDER",
        help="folder of the official lists; default: --source or its data",
    )
    group.add_argument("--side", type=int, help="side of the views in pixels; default: 128")
    group.add_argument("--processes", type=int, help="processes that decode; default: one per core")
    group.add_argument(
        "--layout",
        choices=LAYOUTS,
        help="array_record: compressed shards (default); npy: larger, and several times as fast to"
        " read from memory",
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("contextssl_jax").setLevel(logging.INFO)
    try:
        with task(f"preparing {options.dataset}"):
            lines = _prepare(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; run the same command again to resume", file=sys.stderr)
        return 130
    print(*lines, f"{options.dataset} is ready in {options.out}", sep="\n")
    return 0


def _prepare(options: Namespace) -> Sequence[str]:
    """Validate the options, and prepare.

    Raises:
      UserError: an option is missing, not for this data set, or too small; or by the preparer.
    """
    preparer = _PREPARERS[options.dataset]
    for name in _OPTIONS:
        value = getattr(options, name)
        if value is None and name in preparer.required:
            raise UserError(f"--{name}: is required to prepare {options.dataset}. See --help.")
        if value is not None and name not in (*preparer.required, *preparer.optional):
            raise UserError(f"--{name}: is not an option of {options.dataset}. Omit it.")
        if isinstance(value, int) and value < 1:
            raise UserError(f"--{name}: must be at least 1, not {value}. Raise it.")
    return preparer.run(options)


if __name__ == "__main__":
    sys.exit(main())
