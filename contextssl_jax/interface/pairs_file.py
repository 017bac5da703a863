"""A context as a table: a CSV file of pairs of images and what is observed between them.

    x,y,rotation.x,rotation.y,rotation.z,rotation.w
    a1.png,a2.png,0.1,0.0,0.2,0.97

The first two columns are paths relative to the file. The others are the entries of the observed
groups' actions, in the units of the model's card; groups without columns are not observed.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from contextssl_jax.data.image_files import read_image
from contextssl_jax.errors import UserError
from contextssl_jax.interface.model import Context, Model

_IMAGES = ("x", "y")
_OPTION = "--context"


def read_context(model: Model, path: str) -> Context:
    """Read and encode a context.

    Args:
      model: that encodes it.
      path: of the CSV file.

    Raises:
      UserError: the file or an image is not readable, or a column or value is wrong.
    """
    file = Path(path)
    header, rows = _read(file)
    columns = _columns(model, file, header)
    images = {
        name: np.stack([_image(model, file, row[header.index(name)]) for row in rows])
        for name in _IMAGES
    }
    try:
        actions = {
            group: np.array([[_number(file, i, row[c]) for c in own] for i, row in enumerate(rows)])
            for group, own in columns.items()
        }
        return model.context(images["x"], images["y"], **actions)
    except ValueError as error:
        raise UserError(f"{_OPTION}: {file}: {error}") from error


def _read(file: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows, which are of its length."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            rows = [row for row in csv.reader(opened) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{_OPTION}: cannot read {file} ({reason}). Check the file.") from error
    header = [name.strip() for name in rows[0]] if rows else []
    if tuple(header[:2]) != _IMAGES or len(rows) < 2:
        raise UserError(
            f"{_OPTION}: {file} must start with the columns x,y and have a row for each pair."
        )
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != len(header):
            raise UserError(
                f"{_OPTION}: {file}: row {number} has {len(row)} values, but there are"
                f" {len(header)} columns."
            )
    return header, rows[1:]


def _columns(model: Model, file: Path, header: Sequence[str]) -> dict[str, list[int]]:
    """Return the columns of every observed group's entries."""
    expected = {
        name: [f"{name}.{entry}" for entry in group.action]
        for name, group in model.card.groups.items()
    }
    known = [column for columns in expected.values() for column in columns]
    for column in header[2:]:
        if column not in known or header.count(column) > 1:
            raise UserError(
                f"{_OPTION}: {file}: column {column!r} is repeated or unknown. The model has"
                f" {', '.join(known)}."
            )
    observed = {name: columns for name, columns in expected.items() if {*columns} & {*header}}
    for columns in observed.values():
        if missing := [column for column in columns if column not in header]:
            raise UserError(f"{_OPTION}: {file}: column {missing[0]} is missing. Add it.")
    return {name: [header.index(c) for c in columns] for name, columns in observed.items()}


def _image(model: Model, file: Path, name: str) -> np.ndarray:
    path = file.parent / name.strip()
    image = read_image(path, model.card.image_size)
    if isinstance(image, str):
        reason = image if path.exists() else "does not exist"
        raise UserError(f"{_OPTION}: {path}: cannot be read ({reason}). Check the file.")
    return image


def _number(file: Path, index: int, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UserError(
            f"{_OPTION}: {file}: row {index + 1} has {text!r} instead of a number."
        ) from error
