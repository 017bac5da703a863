"""`train.init_from`: start a new run from the weights of another model."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from contextssl_jax.run.checkpoint import load_checkpoint
from contextssl_jax.step import TrainState
from contextssl_jax.storage.paths import io_errors, resolve_path, workdir_error
from contextssl_jax.weights.files import read_tensors
from contextssl_jax.weights.names import (
    Tensors,
    check_tensors,
    flatten_variables,
    select_part,
    to_float32,
    unflatten_variables,
)
from contextssl_jax.weights.official import official_entries, read_state_dict
from contextssl_jax.weights.saved_model import MODEL, is_saved_model, parse_model

_OPTION, _PART = "--config.train.init_from", "--config.train.init_part"


@dataclass
class InitialWeights:
    """Weights that replace initial ones.

    Attributes:
      tensors: by flat name; all of a model's, or those of its encoder.
      source: what the run's metadata record: where they are from, and their checksum.
    """

    tensors: Tensors
    source: dict[str, Any]

    def replace(self, state: TrainState) -> TrainState:
        """Return the state with these weights. Releases them, since a run needs them only once."""
        tensors, self.tensors = self.tensors, {}
        variables = unflatten_variables(flatten_variables(state.variables) | tensors)
        return state.replace(**variables)  # type: ignore[attr-defined, no-any-return]


def load_initial_weights(config: ConfigDict, variables: Mapping[str, Any]) -> InitialWeights:
    """Load the weights of `train.init_from`, on every process.

    Args:
      config: the options, with `train.init_from`.
      variables: of the run's method, which give names and shapes; their values are ignored.

    Returns:
      The weights.

    Raises:
      UserError: an option is wrong, or the source is not readable or does not fit the model.
    """
    part, source = config.train.init_part, config.train.init_from
    shapes = {name: leaf.shape for name, leaf in flatten_variables(variables).items()}
    tensors, step = _read(resolve_path(source, _OPTION), config, select_part(shapes, part), part)
    return InitialWeights(
        tensors, {"from": source, "part": part, "step": step, "sha256": _checksum(tensors)}
    )


def _read(
    path: epath.Path, config: ConfigDict, shapes: Mapping[str, Any], part: str
) -> tuple[Tensors, int | None]:
    """Return the tensors of the given names and shapes, and the step that they are from."""
    advice = f"Choose a different source, the config that it was trained with, or {_PART}=encoder"
    if part == "encoder":
        advice = "Choose a different source, or the options of its encoder"
    source = f"{_OPTION}: {path}"
    try:
        is_workdir = path.is_dir() and not (path / MODEL).exists()
        file = path / MODEL if path.is_dir() else path
    except io_errors() as error:
        raise workdir_error(path, error) from error
    if is_workdir:
        checkpoint = load_checkpoint(path, None, None, _OPTION)
        step, tensors = checkpoint.step, select_part(flatten_variables(checkpoint.state), part)
    else:
        content = read_tensors(file, _OPTION)
        if not is_saved_model(content):
            entries = official_entries(config, part, _OPTION)
            return read_state_dict(content.tensors, entries, part, shapes, source, advice), None
        model = parse_model(content, file, _OPTION)
        step, tensors = model.step, select_part(model.variables, part)
    check_tensors(tensors, shapes, source, advice)
    return to_float32(tensors), step


def _checksum(tensors: Tensors) -> str:
    """Return a hash of names and values, 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()[:12]
