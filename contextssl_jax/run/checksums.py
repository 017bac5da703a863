"""Checksums of a checkpoint, which are verified when it is read.

The host data stores the shape and the checksum of every array, and a checksum of itself. An array
whose metadata states a larger size than the model's largest array is rejected before it is read.
"""

import json
import math
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from etils import epath

from contextssl_jax.distributed.parallel import fetch_leaf
from contextssl_jax.errors import UserError
from contextssl_jax.storage.paths import is_remote
from contextssl_jax.storage.safe_json import parse_json, truncate
from contextssl_jax.weights.names import unflatten_variables


def with_checksums(step: int, state: Any, host: dict[str, Any]) -> dict[str, Any]:
    """Return the host data with the fields that `read_verified` verifies.

    Args:
      step: the step of the checkpoint.
      state: the state that is saved with it, NumPy arrays or global arrays on the devices of all
        processes, which all call this function. They are fetched one by one, so that the host does
        not hold the state twice.
      host: the host data, JSON values.
    """
    content = {"step": step, **host, "arrays": _array_checksums(state)}
    return {**content, "checksum": _checksum(content)}


def read_verified(folder: epath.Path, template: Any) -> tuple[Any, dict[str, Any]]:
    """Read and verify a checkpoint, or the parts of its state that are in the template.

    Args:
      folder: the checkpoint, whose name is its step.
      template: a state of the same structure, shapes and types; its values are ignored. None for
        the parameters and batch statistics of any model, as nested dictionaries.

    Returns:
      The state, as NumPy arrays, and the host data.

    Raises:
      UserError: the checkpoint is intact, but belongs to a different model.
      Exception: the checkpoint is damaged. The type depends on the damage.
    """
    # Every process reads without synchronization, since the read may fail on some of them only.
    options = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(), active_processes={jax.process_index()}
    )
    handler = ocp.CompositeCheckpointHandler(
        state=ocp.PyTreeCheckpointHandler(multiprocessing_options=options),
        host=ocp.JsonCheckpointHandler(multiprocessing_options=options),
    )
    with ocp.Checkpointer(handler, multiprocessing_options=options) as reader:
        host = reader.restore(folder, ocp.args.Composite(host=ocp.args.JsonRestore()))["host"]
        if host.pop("checksum") != _checksum(host) or str(host.pop("step")) != folder.name:
            raise ValueError("the host data does not match its checksum")
        checksums = host.pop("arrays")
        if template is None:
            template = _variables_template(checksums)
        for name, leaf in _leaves(template):
            saved_shape = checksums[name]["shape"] if name in checksums else "missing"
            if saved_shape != list(leaf.shape):
                raise UserError(
                    f"{folder}: the checkpoint belongs to a different model (the shape of {name} is"
                    f" {saved_shape} in the checkpoint, {list(leaf.shape)} in the config). Use the"
                    " config that the checkpoint was trained with."
                )
        _check_sizes(folder / "state", max(leaf.nbytes for _, leaf in _leaves(template)))
        restore_args = ocp.args.PyTreeRestore(
            item=template,
            restore_args=ocp.checkpoint_utils.construct_restore_args(template),
            partial_restore=True,
        )
        state = reader.restore(folder, ocp.args.Composite(state=restore_args))["state"]
    if any(checksums[name] != found for name, found in _array_checksums(state).items()):
        raise ValueError("an array does not match its checksum")
    return state, host


def _variables_template(checksums: dict[str, Any]) -> dict[str, Any]:
    """Return a template of the parameters and batch statistics that a checkpoint contains."""
    return unflatten_variables(
        {
            name: np.empty(checksum["shape"], np.float32)
            for name, checksum in checksums.items()
            if name.startswith(("params.", "batch_stats."))
        }
    )


def _check_sizes(folder: epath.Path, largest: int) -> None:
    """Raise ValueError if an array's metadata states more than `largest` entries."""
    url = str(folder) if is_remote(folder) else f"file://{quote(str(folder))}"
    arrays = ts.KvStore.open({"driver": "ocdbt", "base": f"{url}/"}).result()
    for key in arrays.list().result():
        if key.endswith(b"/.zarray"):
            metadata = parse_json(arrays.read(key).result().value.decode())
            for name in ("shape", "chunks"):
                if not 0 <= math.prod(metadata[name]) <= largest:
                    raise ValueError(f"{truncate(key.decode())} has {name} {metadata[name]}")


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    return [
        (jax.tree_util.keystr(path, simple=True, separator="."), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _checksum(host: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(host, sort_keys=True).encode())


def _array_checksums(state: Any) -> dict[str, dict[str, Any]]:
    """Return the shape of every array and the CRC-32 of its bytes."""
    with ThreadPoolExecutor() as pool:
        checksums = [
            (name, leaf.shape, pool.submit(_crc32, fetch_leaf(leaf)))
            for name, leaf in _leaves(state)
        ]
        return {
            name: {"shape": list(shape), "crc32": checksum.result()}
            for name, shape, checksum in checksums
        }


def _crc32(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data)
