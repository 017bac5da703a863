"""Errors that the user can fix, and the parsing of values that raises them.

Imports only the standard library, so that launch/ works on a machine without JAX.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NoReturn, TypeVar

T = TypeVar("T")


class UserError(Exception):
    """An error that the user can fix. Commands print its one line without a traceback."""


class SharedError(UserError):
    """A UserError that is raised on every process. Process 0 prints it."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UserError instead of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError with argparse's message."""
        raise UserError(message.removeprefix("argument "))


def run_command(command: Callable[[Sequence[str]], None], argv: Sequence[str]) -> int:
    """Run a command line whose messages are those of this package.

    Args:
      command: takes the command line, including the program's name.
      argv: the command line.

    Returns:
      The exit status: 0 for success, 2 for a user error, of which one line is printed.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    logging.getLogger("contextssl_jax").setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # the errors that it logs are raised too
    try:
        command(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def lookup(table: Mapping[str, T], name: str, option: str) -> T:
    """Return the entry of a table.

    Args:
      table: entries by name.
      name: the name that the user chose.
      option: the option that sets the name, for the error message.

    Raises:
      UserError: the table has no entry of that name.
    """
    if name not in table:
        raise UserError(f"{option}: unknown value {name!r}. Choose one of {', '.join(table)}.")
    return table[name]


def expand_home(path: str, option: str) -> str:
    """Return the path with a leading ~ or ~user replaced by the home folder.

    Shells do not expand it after an equals sign, as in --workdir=~/run.

    Args:
      path: local path or URL.
      option: the option or variable that sets it, for the error message.

    Raises:
      UserError: the user is unknown, or has no home folder.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise UserError(
            f"{option}: no home folder is known for {path}. Write the full path, or ./{path} for a"
            " folder of this name."
        )
    return expanded


@contextmanager
def reraise_out_of_memory(advice: str) -> Iterator[None]:
    """Re-raise an out-of-memory error of a device as a UserError.

    Args:
      advice: imperative sentence without a period that names the options to change.

    Raises:
      UserError: a device is out of memory.
    """
    from jax.errors import JaxRuntimeError  # see the module docstring

    try:
        yield
    except JaxRuntimeError as error:
        line = str(error).splitlines()[0]
        if "RESOURCE_EXHAUSTED" not in line and "out of memory" not in line.lower():
            raise
        raise UserError(f"a device is out of memory ({line[:200]}). {advice}.") from error
