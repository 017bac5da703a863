"""Flags, and mistakes in them, without anything that is not Python's own."""

import argparse
from typing import NoReturn


class Mistake(Exception):
    """A mistake that the user can mend; told in one line, with status 2."""


class Parser(argparse.ArgumentParser):
    """Raises Mistake where argparse would print its usage, and knows no abbreviations."""

    def __init__(self, **options: object) -> None:
        super().__init__(allow_abbrev=False, **options)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        raise Mistake(message.removeprefix("argument "))
