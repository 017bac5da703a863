"""Checkpoints: saved beside the training, verified when read, none ever silently lost."""

import logging
import zlib
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from contextssl_jax.errors import UserError

_log = logging.getLogger(__name__)


class Checkpoint(NamedTuple):
    """What a checkpoint holds."""

    step: int
    state: Any  # the train state, NumPy arrays
    host: dict[str, Any]  # what the host keeps: data position, metrics since the last line


class Checkpoints:
    """The checkpoints of a working directory, in `<workdir>/checkpoints/<step>/`.

    Saving happens in the background and is atomic: a folder bears its step's name only once it is
    whole. Each array's checksum is saved beside it.
    """

    def __init__(self, workdir: epath.Path, keep: int) -> None:
        """Opens the folder, making it where needed; the newest `keep` checkpoints stay."""
        self._folder = (workdir / "checkpoints").resolve()  # Orbax refuses relative paths
        self._folder.mkdir(parents=True, exist_ok=True)
        self._damaged = workdir / "damaged"
        policy = ocp.checkpoint_managers.LatestN(keep)
        self._manager = ocp.CheckpointManager(
            self._folder, options=ocp.CheckpointManagerOptions(preservation_policy=policy)
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._manager.close()

    def steps(self) -> list[int]:
        """Returns the steps that have a checkpoint, whole or damaged, oldest first."""
        return _steps(self._folder)

    def save(self, checkpoint: Checkpoint) -> None:
        """Starts to save in the background, unless the step is saved already.

        The arrays must not change before `wait`, or the next save, returns.
        """
        if checkpoint.step in self.steps():
            return
        host = {**checkpoint.host, "checksums": _checksums(checkpoint.state)}
        self._manager.save(
            checkpoint.step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(checkpoint.state), host=ocp.args.JsonSave(host)
            ),
        )

    def wait(self) -> None:
        """Returns once everything is on disk."""
        self._manager.wait_until_finished()

    def restore(self, template: Any) -> Checkpoint | None:
        """Reads the newest checkpoint that is whole; None where there is none at all.

        A damaged one is moved to `<workdir>/damaged/`, with a warning that says why.

        Args:
          template: a state of the same structure, shapes and types; its values do not matter.

        Raises:
          UserError: every checkpoint is damaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self._read(step, template)
            # Damage shows as whatever the reader trips over: it is told, and the folder kept.
            except Exception as error:
                _log.warning(
                    "checkpoint %d is damaged (%s); trying the one before", step, _reason(error)
                )
                self._set_aside(step)
        if steps:
            raise UserError(
                f"{self._folder}: no checkpoint can be read (they were moved to {self._damaged});"
                " to train anew, choose another --workdir"
            )
        return None

    def _read(self, step: int, template: Any) -> Checkpoint:
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(template), host=ocp.args.JsonRestore()
            ),
        )
        host = dict(restored["host"])
        if host.pop("checksums") != _checksums(restored["state"]):
            raise ValueError("checksums do not match")
        return Checkpoint(step, restored["state"], host)

    def _set_aside(self, step: int) -> None:
        self._damaged.mkdir(exist_ok=True)
        taken = [path.name for path in self._damaged.iterdir()]
        names = [str(step), *(f"{step}.{i}" for i in range(1, len(taken) + 1))]
        free = next(name for name in names if name not in taken)
        (self._folder / str(step)).rename(self._damaged / free)
        self._manager.reload()


def load(
    workdir: epath.Path, template: dict[str, Any], step: int | None
) -> tuple[int, dict[str, Any]]:
    """Reads parts of a saved state, and changes nothing in the folder: a run may be using it.

    Args:
      workdir: of the run.
      template: the parts by their names in the state; the values of their leaves do not matter.
      step: to be read; None is the newest that is whole.

    Returns:
      The step, and the parts as they were saved, NumPy arrays.

    Raises:
      UserError: there is no such checkpoint, it is damaged, or it does not fit the template.
    """
    folder = (workdir / "checkpoints").resolve()
    steps = _steps(folder) if folder.exists() else []
    if not steps:
        raise UserError(f"--workdir: {workdir} has no checkpoint; train first")
    if step is not None and step not in steps:
        there = ", ".join(map(str, steps))
        raise UserError(f"--step: {workdir} has no checkpoint {step}; it has {there}")
    for one in reversed(steps) if step is None else [step]:
        try:
            return one, _load(folder / str(one), template)
        except UserError:
            raise
        # Damage shows as whatever the reader trips over.
        except Exception as error:
            if step is not None:
                raise UserError(
                    f"--step: checkpoint {step} is damaged ({_reason(error)})"
                ) from error
            _log.warning("checkpoint %d is damaged (%s)", one, _reason(error))
    raise UserError(f"--workdir: no checkpoint in {folder} can be read")


def _steps(folder: epath.Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def _load(folder: epath.Path, template: dict[str, Any]) -> dict[str, Any]:
    saved = ocp.PyTreeCheckpointHandler().metadata(folder / "state").tree
    there = {_name(path): tuple(leaf.shape) for path, leaf in _leaves(saved)}
    for path, leaf in _leaves(template):
        if there.get(_name(path)) != leaf.shape:
            raise UserError(
                f"--config: does not fit {folder}: {_name(path)} is"
                f" {there.get(_name(path), 'missing')} there, {leaf.shape} here"
            )
    wanted = ocp.args.Composite(
        state=ocp.args.PyTreeRestore(
            item=template,
            restore_args=ocp.checkpoint_utils.construct_restore_args(template),
            partial_restore=True,
        ),
        host=ocp.args.JsonRestore(),
    )
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
        restored = reader.restore(folder, args=wanted)
    parts: dict[str, Any] = restored["state"]
    saved = restored["host"]["checksums"]
    for name, part in parts.items():
        for path, checksum in _checksums(part).items():
            if saved[f".{name}{path}"] != checksum:
                raise ValueError("checksums do not match")
    return parts


def _leaves(tree: Any) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_leaves_with_path(tree)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _checksums(state: Any) -> dict[str, int]:
    """Returns the CRC-32 of every array's bytes."""
    leaves = _leaves(state)
    with ThreadPoolExecutor() as pool:
        sums = pool.map(lambda item: zlib.crc32(np.ascontiguousarray(item[1]).data), leaves)
        return {jax.tree_util.keystr(path): s for (path, _), s in zip(leaves, sums, strict=True)}
