"""Files of named tensors: safetensors, and state dicts of PyTorch, which is optional.

Files may come from anyone: safetensors cannot contain code, and PyTorch reads with
`weights_only=True`.
"""

import io
import json
import re
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from etils import epath
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from contextssl_jax.errors import UserError
from contextssl_jax.storage.files import write_atomic
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
# Keys under which training scripts commonly nest the state dict of the model.
_NESTED = ("state_dict", "model_state_dict", "model_state", "model", "net")
# Prefixes of torch.nn.DataParallel and torch.compile.
_WRAPPERS = ("module.", "_orig_mod.")


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
    parse = _parse if file.suffix == ".safetensors" else _parse_torch
    return parse(content, file, option)


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
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    if file.suffix == ".safetensors":
        content = save(contiguous, dict(metadata))
    else:
        import torch

        buffer = io.BytesIO()
        torch.save({n: torch.from_numpy(t.copy()) for n, t in contiguous.items()}, buffer)
        content = buffer.getvalue()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, content)
    except io_errors() as error:
        raise UserError(
            f"{option}: cannot write {file} ({error_reason(error)}). Choose a writable path."
        ) from error


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


def _parse_torch(content: bytes, file: epath.Path, option: str) -> TensorFile:
    import torch

    try:
        with warnings.catch_warnings(action="ignore"):
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # damage raises many types
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))  # by the unpickler of weights_only
        if refused:
            raise UserError(
                f"{option}: {file} contains the object {truncate(refused[1])}, and only tensors are"
                " loaded, since others can run code. Save the state dict alone:"
                " torch.save(net.state_dict(), FILE)."
            ) from error
        raise UserError(
            f"{option}: {file} is not a PyTorch checkpoint, or is damaged"
            f" ({type(error).__name__}). Choose a different file, or download it again."
        ) from error
    state = _find_state_dict(loaded)
    if state is None:
        raise UserError(
            f"{option}: {file} contains no state dict, neither directly nor under"
            f" {', '.join(_NESTED)}. Save it: torch.save(net.state_dict(), FILE)."
        )
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in state):
            state = {name.removeprefix(wrapper): tensor for name, tensor in state.items()}
    return TensorFile({name: _to_numpy(tensor) for name, tensor in state.items()}, {})


def _find_state_dict(loaded: Any) -> dict[str, Any] | None:
    """Return the state dict that a checkpoint is or contains; None if there is none."""
    import torch

    while isinstance(loaded, Mapping):
        if loaded and all(
            isinstance(name, str)
            and isinstance(value, torch.Tensor)
            and value.layout == torch.strided
            and not value.is_quantized
            for name, value in loaded.items()
        ):
            return dict(loaded)
        loaded = next((loaded[key] for key in _NESTED if key in loaded), None)
    return None


def _to_numpy(tensor: Any) -> np.ndarray:
    import torch

    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:  # NumPy has no such type; float32 represents it exactly
        tensor = tensor.float()
    array: np.ndarray = tensor.numpy()
    return array
