"""State dicts of PyTorch, read as untrusted data: tensors alone, by `weights_only=True`.

Import this module only where PyTorch is installed.
"""

import io
import re
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from contextssl_jax.errors import UserError
from contextssl_jax.storage.safe_json import truncate
from contextssl_jax.weights.names import Tensors

# Keys under which training scripts commonly nest the state dict of the model.
_NESTED = ("state_dict", "model_state_dict", "model_state", "model", "net")
# Prefixes of torch.nn.DataParallel and torch.compile.
_WRAPPERS = ("module.", "_orig_mod.")


def parse_state_dict(content: bytes, source: str) -> Tensors:
    """Return the tensors of a checkpoint's state dict.

    Args:
      content: of the file.
      source: option and file, for error messages.

    Raises:
      UserError: the content is no checkpoint, is damaged, or contains other objects than tensors.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # damage raises many types
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))  # by the unpickler of weights_only
        if refused:
            raise UserError(
                f"{source} contains the object {truncate(refused[1])}, and only tensors are"
                " loaded, since others can run code. Save the state dict alone:"
                " torch.save(net.state_dict(), FILE)."
            ) from error
        raise UserError(
            f"{source} is not a PyTorch checkpoint, or is damaged"
            f" ({type(error).__name__}). Choose a different file, or download it again."
        ) from error
    state = _find_state_dict(loaded)
    if state is None:
        raise UserError(
            f"{source} contains no state dict, neither directly nor under"
            f" {', '.join(_NESTED)}. Save it: torch.save(net.state_dict(), FILE)."
        )
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in state):
            state = {name.removeprefix(wrapper): tensor for name, tensor in state.items()}
    return {name: _to_numpy(tensor) for name, tensor in state.items()}


def serialize_state_dict(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Return the content of a file with these tensors."""
    buffer = io.BytesIO()
    torch.save({name: torch.from_numpy(t.copy()) for name, t in tensors.items()}, buffer)
    return buffer.getvalue()


def _find_state_dict(loaded: Any) -> dict[str, Any] | None:
    """Return the state dict that a checkpoint is or contains; None if there is none."""
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
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:  # NumPy has no such type; float32 represents it exactly
        tensor = tensor.float()
    array: np.ndarray = tensor.numpy()
    return array
