"""A model in a folder: model.safetensors and config.json, which together rebuild it.

The layout is that of model repositories. The file alone is complete as well: its metadata contain
the config.

| tensors | content |
|---|---|
| params.*, batch_stats.* | the method's variables, by flat name |
| statistics.* | image size, and what standardizes pixels, transform parameters and actions |
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from contextssl_jax.errors import UserError
from contextssl_jax.storage.files import reraise_write_errors, write_atomic
from contextssl_jax.storage.safe_json import parse_json, truncate
from contextssl_jax.weights.files import TensorFile, read_tensors, write_tensors
from contextssl_jax.weights.names import Tensors, to_float32

MODEL, CONFIG = "model.safetensors", "config.json"
_LIBRARY, _LAYOUT = "contextssl-jax", "1"
_STATISTICS = "statistics."
_VARIABLES = ("params.", "batch_stats.")


class SavedModel(NamedTuple):
    """A model without the code that runs it."""

    config: dict[str, Any]  # the options of its run
    step: int  # training steps taken
    variables: Tensors  # by flat name
    statistics: Mapping[str, Any]  # those of data.inputs.InputStatistics, float32
    figures: Mapping[str, Any] | None = None  # of its report; see evaluation.figures


def write_model(folder: epath.Path, model: SavedModel, option: str) -> None:
    """Write model.safetensors and config.json to a folder, which is created.

    Raises:
      UserError: the folder is not writable; the message names the option.
    """
    config = json.dumps(model.config, indent=2) + "\n"
    statistics = {
        f"{_STATISTICS}{name}": np.asarray(value, np.float32)
        for name, value in model.statistics.items()
    }
    metadata = {
        "library": _LIBRARY,
        "layout": _LAYOUT,
        "step": str(model.step),
        "config": json.dumps(model.config),
        "figures": json.dumps(model.figures),
    }
    write_tensors(folder / MODEL, model.variables | statistics, metadata, option)
    with reraise_write_errors(folder, option):
        write_atomic(folder / CONFIG, config)


def read_model(path: epath.Path, option: str) -> SavedModel:
    """Read a folder or a file that `write_model` wrote; the file is sufficient.

    Raises:
      UserError: it is not readable, damaged, or not written by `write_model`; the message names
        the option.
    """
    file = path / MODEL if path.is_dir() else path
    return parse_model(read_tensors(file, option), file, option)


def is_saved_model(content: TensorFile) -> bool:
    """Return True for the content of a file that `write_model` wrote."""
    return content.metadata.get("library") == _LIBRARY


def parse_model(content: TensorFile, file: epath.Path, option: str) -> SavedModel:
    """Return the model of a file's content; see read_model."""
    if not is_saved_model(content):
        raise UserError(
            f"{option}: {file} was not written by this project. Write it by python -m"
            " contextssl_jax.release."
        )
    if content.metadata.get("layout") != _LAYOUT:
        raise UserError(
            f"{option}: {file} has layout {truncate(content.metadata.get('layout'))}, which this"
            f" version does not know. Use the version that wrote it, or write it again."
        )
    try:
        config, step = parse_json(content.metadata["config"]), int(content.metadata["step"])
        figures = parse_json(content.metadata["figures"])
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{option}: {file} has damaged metadata ({truncate(error)}). Write it again."
        ) from error
    tensors = content.tensors
    return SavedModel(
        config,
        step,
        _with_prefix(tensors, *_VARIABLES),
        {
            name.removeprefix(_STATISTICS): value
            for name, value in to_float32(_with_prefix(tensors, _STATISTICS)).items()
        },
        figures,
    )


def _with_prefix(tensors: Mapping[str, np.ndarray], *prefixes: str) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name.startswith(prefixes)}
