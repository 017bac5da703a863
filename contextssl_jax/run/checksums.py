"""One checkpoint's folder: sealed by checksums when it is written, and verified when it is read.

What the host keeps is sealed with the shape and the checksum of every array, and with a checksum
of itself. Arrays that claim more memory than the model's are not read at all.
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

from contextssl_jax.errors import UserError
from contextssl_jax.storage.paths import is_remote
from contextssl_jax.storage.safe_json import parse_json, truncate


def with_checksums(step: int, state: Any, host: dict[str, Any]) -> dict[str, Any]:
    """Returns what the host keeps, with all that `read` verifies.

    Args:
      step: of the checkpoint.
      state: that is saved beside it, NumPy arrays.
      host: what the host keeps, as JSON knows it.
    """
    sealed = {"step": step, **host, "arrays": _sums(state)}
    return {**sealed, "checksum": _checksum(sealed)}


def read_verified(folder: epath.Path, template: Any) -> tuple[Any, dict[str, Any]]:
    """Reads a checkpoint, or those parts of its state that the template has, on this process alone.

    Args:
      folder: that bears the step's name.
      template: a state of the same structure, shapes and types; its values do not matter.

    Returns:
      The state, NumPy arrays, and what the host kept.

    Raises:
      UserError: it is whole, but of another model.
      Exception: whatever damage leads to.
    """
    # This process alone: the others read too, but may come to another end.
    alone = {jax.process_index()}
    options = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(), active_processes=alone
    )
    handler = ocp.CompositeCheckpointHandler(
        state=ocp.PyTreeCheckpointHandler(multiprocessing_options=options),
        host=ocp.JsonCheckpointHandler(multiprocessing_options=options),
    )
    with ocp.Checkpointer(handler, multiprocessing_options=options) as reader:
        host = reader.restore(folder, ocp.args.Composite(host=ocp.args.JsonRestore()))["host"]
        if host.pop("checksum") != _checksum(host) or str(host.pop("step")) != folder.name:
            raise ValueError("what the host keeps does not match its checksum")
        sums = host.pop("arrays")
        for name, leaf in _leaves(template):
            there = sums[name]["shape"] if name in sums else "missing"
            if there != list(leaf.shape):
                raise UserError(
                    f"{folder}: is of another model: {name} is {there} there,"
                    f" {list(leaf.shape)} here"
                )
        _check_sizes(folder / "state", max(leaf.nbytes for _, leaf in _leaves(template)))
        wanted = ocp.args.PyTreeRestore(
            item=template,
            restore_args=ocp.checkpoint_utils.construct_restore_args(template),
            partial_restore=True,
        )
        state = reader.restore(folder, ocp.args.Composite(state=wanted))["state"]
    if any(sums[name] != one for name, one in _sums(state).items()):
        raise ValueError("an array does not match its checksum")
    return state, host


def _check_sizes(folder: epath.Path, largest: int) -> None:
    """Raises ValueError for an array that to read would take far more memory than the model's."""
    place = str(folder) if is_remote(folder) else f"file://{quote(str(folder))}"
    arrays = ts.KvStore.open({"driver": "ocdbt", "base": f"{place}/"}).result()
    for key in arrays.list().result():
        if key.endswith(b"/.zarray"):
            described = parse_json(arrays.read(key).result().value.decode())
            for name in ("shape", "chunks"):
                if not 0 <= math.prod(described[name]) <= largest:
                    raise ValueError(f"{truncate(key.decode())} is of the {name} {described[name]}")


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    return [
        (jax.tree_util.keystr(path, simple=True, separator="."), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _checksum(host: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(host, sort_keys=True).encode())


def _sums(state: Any) -> dict[str, dict[str, Any]]:
    """Returns the shape of every array, and the CRC-32 of its bytes."""
    leaves = _leaves(state)
    with ThreadPoolExecutor() as pool:
        sums = pool.map(lambda item: zlib.crc32(np.ascontiguousarray(item[1]).data), leaves)
        return {
            name: {"shape": list(leaf.shape), "crc32": one}
            for (name, leaf), one in zip(leaves, sums, strict=True)
        }
