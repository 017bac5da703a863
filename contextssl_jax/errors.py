"""Mistakes that the user can mend."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


class UserError(Exception):
    """A mistake that the user can mend; main prints its one line without a traceback."""


def pick(table: Mapping[str, T], name: str, option: str) -> T:
    """Returns the table's entry of that name.

    Raises:
      UserError: there is none; the message names the option and its possible values.
    """
    if name not in table:
        raise UserError(f"{option}: {name!r} is none of {', '.join(table)}")
    return table[name]
