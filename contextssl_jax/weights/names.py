"""Flat names of a model's variables, such as params.encoder.conv1.kernel, and their validation."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from contextssl_jax.errors import UserError
from contextssl_jax.storage.safe_json import truncate

Tensors = dict[str, np.ndarray]  # by flat name

_MAX_LISTED = 3  # names of each kind in a message
# Types that float32 represents exactly.
_EXACT = (np.dtype("float32"), np.dtype("float16"), np.dtype(jnp.bfloat16))


def flatten_variables(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the leaves of a method's variables by flat name."""
    return dict(flatten_dict(variables, sep="."))


def unflatten_variables(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return a method's variables, {"params": ..., "batch_stats": ...}, from flat names."""
    return {"params": {}, "batch_stats": {}} | unflatten_dict(tensors, sep=".")


def select_part(tensors: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Return the tensors of a part: "all", or "encoder" for its parameters and statistics."""
    if part == "all":
        return dict(tensors)
    prefixes = (f"params.{part}.", f"batch_stats.{part}.")
    return {name: tensor for name, tensor in tensors.items() if name.startswith(prefixes)}


def check_tensors(
    found: Mapping[str, Any], expected: Mapping[str, Sequence[int]], source: str, advice: str
) -> None:
    """Check names, shapes and types of tensors from a file.

    Args:
      found: the file's tensors, or anything with `shape` and `dtype`.
      expected: shapes by name.
      source: option and file, for the message.
      advice: imperative sentence without a period.

    Raises:
      UserError: a tensor is missing, unexpected, of the wrong shape, or of a type that float32
        does not represent exactly. The message lists the first names of each kind.
    """
    common = [name for name in expected if name in found]
    problems = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "wrong shape": [
            f"{name} ({list(found[name].shape)}, not {list(expected[name])})"
            for name in common
            if tuple(found[name].shape) != tuple(expected[name])
        ],
        "wrong type": [
            f"{name} ({found[name].dtype}, not float32)"
            for name in common
            if found[name].dtype not in _EXACT
        ],
    }
    listed = [f"{kind}: {_list(names)}" for kind, names in problems.items() if names]
    if listed:
        raise UserError(f"{source} does not fit the model ({'; '.join(listed)}). {advice}.")


def to_float32(tensors: Mapping[str, np.ndarray]) -> Tensors:
    """Return tensors of floating-point types as float32 arrays."""
    return {name: np.asarray(tensor, np.float32) for name, tensor in tensors.items()}


def _list(names: Sequence[str]) -> str:
    hidden = len(names) - _MAX_LISTED
    more = f" and {hidden} more" if hidden > 0 else ""
    return ", ".join(map(truncate, names[:_MAX_LISTED])) + more
