"""Mistakes that the user can mend."""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn, TypeVar

import jax

T = TypeVar("T")


class UserError(Exception):
    """A mistake that the user can mend; main prints its one line without a traceback."""


class SharedError(UserError):
    """A mistake that every process has been told of; process 0 tells it to the user."""


class Parser(argparse.ArgumentParser):
    """Raises UserError where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        """See the class."""
        raise UserError(message)


def lookup(table: Mapping[str, T], name: str, option: str) -> T:
    """Returns the table's entry of that name.

    Raises:
      UserError: there is none; the message names the option and its possible values.
    """
    if name not in table:
        raise UserError(f"{option}: {name!r} is none of {', '.join(table)}")
    return table[name]


@contextmanager
def reraise_out_of_memory(advice: str) -> Iterator[None]:
    """Turns a device's want of memory into one line.

    Args:
      advice: what to lower.

    Raises:
      UserError: memory is out.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        line = str(error).splitlines()[0]
        if "RESOURCE_EXHAUSTED" not in line and "out of memory" not in line.lower():
            raise
        raise UserError(f"a device is out of memory ({line[:200]}); {advice}") from error
