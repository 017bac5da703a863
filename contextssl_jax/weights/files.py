"""Files of named tensors: safetensors, and state dicts of PyTorch, which is optional."""

import json
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from etils import epath
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from contextssl_jax.errors import UserError
from contextssl_jax.storage.files import reraise_write_errors, write_atomic
from contextssl_jax.storage.paths import error_reason, io_errors, is_installed
from contextssl_jax.storage.safe_json import truncate
from contextssl_jax.weights.names import Tensors

_SUFFIXES = (".safetensors", ".pt", ".pth")

_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
}


class TensorFile(NamedTuple):
    """The content of a file."""

    tensors: Tensors
    metadata: dict[str, str]


def read_tensors(file: epath.Path, option: str) -> TensorFile:
    """Read a file of named tensors.

    Args:
      file: with the suffix .safetensors; .pt or .pth for a state dict of PyTorch.
      option: the option that sets the file, for error messages.

    Raises:
      UserError: the file is not readable, is no such file, contains other objects than tensors, or
        requires PyTorch, which is not installed.
    """
    check_format(file, option)
    try:
        content = file.read_bytes()
    except io_errors() as error:
        raise UserError(
            f"{option}: cannot read {file} ({error_reason(error)}). Check the path."
        ) from error
    if file.suffix == ".safetensors":
        return _parse(content, file, option)
    from contextssl_jax.weights.torch_files import parse_state_dict  # PyTorch is optional

    return TensorFile(parse_state_dict(content, f"{option}: {file}"), {})


def write_tensors(
    file: epath.Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str], option: str
) -> None:
    """Write named tensors atomically.

    Args:
      file: see read_tensors.
      tensors: by name.
      metadata: of a .safetensors file; not written to others.
      option: the option that sets the file, for error messages.

    Raises:
      UserError: see read_tensors; or the file is not writable.
    """
    check_format(file, option)
    contiguous = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    if file.suffix == ".safetensors":
        content = save(contiguous, dict(metadata))
    else:
        from contextssl_jax.weights.torch_files import serialize_state_dict  # likewise

        content = serialize_state_dict(contiguous)
    with reraise_write_errors(file, option):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, content)


def check_format(file: epath.Path, option: str) -> None:
    """Check the suffix of a file, and that PyTorch is installed if it needs it.

    Raises:
      UserError: see read_tensors.
    """
    if file.suffix not in _SUFFIXES:
        raise UserError(
            f"{option}: {file} has an unknown suffix. Use a file with .safetensors or .pt."
        )
    if file.suffix != ".safetensors" and not is_installed("torch"):
        raise UserError(
            f"{option}: {file} requires PyTorch, which is not installed. Run: pip install"
            " 'contextssl-jax[torch]', or use a .safetensors file."
        )


def _parse(content: bytes, file: epath.Path, option: str) -> TensorFile:
    try:
        tensors = {
            name: np.frombuffer(view["data"], _DTYPES[view["dtype"]]).reshape(view["shape"])
            for name, view in deserialize(content)
        }
    except SafetensorError as error:
        raise UserError(
            f"{option}: {file} is not a safetensors file, or is damaged ({truncate(error)}). Choose"
            " a different file, or write it again."
        ) from error
    except KeyError as error:
        raise UserError(
            f"{option}: {file} has tensors of type {truncate(error.args[0])}, which are not"
            " weights. Choose a different file."
        ) from error
    size = int.from_bytes(content[:8], "little")  # of the header, which deserialize has validated
    return TensorFile(tensors, json.loads(content[8 : 8 + size]).get("__metadata__", {}))
