"""Checkpoints: saved beside the training by all processes, verified when read, none silently lost.

Saved arrays are the same on all processes; each writes a part of them. Every folder is sealed, and
`checkpoints.json` tells which steps were saved: so that whatever is damaged, or gone, is noticed.
"""

import functools
import json
import logging
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from etils import epath

from contextssl_jax.distributed.processes import all_processes_agree, run_on_primary
from contextssl_jax.errors import UserError
from contextssl_jax.run.checksums import read_verified, with_checksums
from contextssl_jax.storage.files import write_atomic
from contextssl_jax.storage.paths import (
    absolute_path,
    is_complete,
    list_folder,
    list_numbered,
    move_folder,
)
from contextssl_jax.storage.safe_json import read_json, truncate

_log = logging.getLogger(__name__)
_SAVED = "checkpoints.json"
# What matters in a writer's long message.
_KNOWN = "No space left on device|Disk quota exceeded|File too large|Read-only file system"


class DamagedError(Exception):
    """A checkpoint is not as it was written; the message says how that shows."""


class Checkpoint(NamedTuple):
    """What a checkpoint holds."""

    step: int
    state: Any  # the train state, NumPy arrays
    host: dict[str, Any]  # what the host keeps: data position, metrics since the last line


class Checkpoints:
    """The checkpoints of a working directory, in `<workdir>/checkpoints/<step>/`.

    Saving happens in the background and is atomic: a folder bears its step's name only once it is
    whole. Every process calls the same functions in the same order.
    """

    def __init__(self, workdir: epath.Path, keep: int) -> None:
        """Opens the folder, making it where needed; the newest `keep` checkpoints stay."""
        self._folder = absolute_path(workdir / "checkpoints")  # Orbax refuses relative paths
        self._folder.mkdir(parents=True, exist_ok=True)
        self._workdir, self._damaged = workdir, workdir / "damaged"
        self._broken = False  # a save has failed
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(keep),
            cleanup_tmp_directories=True,  # of saves that a kill cut short
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._broken:
            self._manager.close()  # waits for a save that is under way

    def steps(self) -> list[int]:
        """Returns the steps that have a checkpoint, whole or damaged, oldest first."""
        return _steps(self._folder)

    def save(self, checkpoint: Checkpoint, arrays: Any) -> None:
        """Starts to save in the background, unless the step is saved already.

        Args:
          checkpoint: what to save; its state on the host serves for the checksums.
          arrays: the state on the devices, whole on every one of them.

        Raises:
          UserError: this save, or the one before, failed, such as on a full disk.
        """
        if run_on_primary(lambda: checkpoint.step in self.steps()):
            return
        self.wait()
        host = with_checksums(checkpoint.step, checkpoint.state, checkpoint.host)
        try:
            self._manager.save(
                checkpoint.step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(arrays), host=ocp.args.JsonSave(host)
                ),
            )
        except Exception as error:  # whatever the writer trips over
            raise self._failed(checkpoint.step, error) from error

    def wait(self) -> None:
        """Returns once everything is on disk, and noted.

        Raises:
          UserError: a save failed.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # whatever the writer tripped over
            raise self._failed(None, error) from error
        if jax.process_index() == 0 and (steps := self.steps()):
            try:
                self._note(steps)
            except OSError as error:
                raise self._failed(None, error) from error

    def restore(self, template: Any) -> Checkpoint | None:
        """Reads the newest checkpoint that is whole; None where none was ever saved.

        A damaged one is moved to `<workdir>/damaged/`, with a warning that says why.

        Args:
          template: a state of the same structure, shapes and types; its values do not matter.

        Raises:
          UserError: every checkpoint is damaged or gone, or is of another model.
        """
        steps, noted = run_on_primary(lambda: [self.steps(), _noted(self._workdir)])
        # Older ones may have made room for newer ones since the note was written.
        gone = [step for step in noted if not steps or step > steps[-1]]
        if steps and gone:
            _log.warning("checkpoint %s is gone from %s", _listed(gone), self._folder)
        for step in reversed(steps):
            try:
                return _read(self._folder, step, template)
            except DamagedError as damage:
                _log.warning("checkpoint %d is damaged (%s); trying the one before", step, damage)
            run_on_primary(functools.partial(self._set_aside, step))
            self._manager.reload()
        if steps or gone:
            what = "can be read" if steps else f"is left of steps {_listed(gone)}"
            where = f" (they were moved to {self._damaged})" if steps else ""
            raise UserError(
                f"{self._folder}: no checkpoint {what}{where}; put one back, or, to train anew,"
                " choose another --workdir"
            )
        return None

    def _set_aside(self, step: int) -> None:
        taken = [path.name for path in list_folder(self._damaged)]
        names = [str(step), *(f"{step}.{i}" for i in range(1, len(taken) + 1))]
        free = next(name for name in names if name not in taken)
        move_folder(self._folder / str(step), self._damaged / free)

    def _note(self, steps: Sequence[int]) -> None:
        if _noted(self._workdir) != list(steps):
            write_atomic(self._workdir / _SAVED, json.dumps({"steps": list(steps)}) + "\n")

    def _failed(self, step: int | None, error: Exception) -> UserError:
        self._broken = True
        kept = self.steps()
        last = f"the last checkpoint is step {kept[-1]}" if kept else "there is none before it"
        which = "a checkpoint" if step is None else f"checkpoint {step}"
        return UserError(f"{self._folder}: {which} could not be saved ({_reason(error)}); {last}")


def load_checkpoint(
    workdir: epath.Path, template: dict[str, Any], step: int | None
) -> tuple[int, dict[str, Any]]:
    """Reads parts of a saved state, and changes nothing in the folder: a run may be using it.

    Args:
      workdir: of the run.
      template: the parts by their names in the state; the values of their leaves do not matter.
      step: to be read; None is the newest that is whole.

    Returns:
      The step, and the parts as they were saved, NumPy arrays; the same step on all processes.

    Raises:
      UserError: there is no such checkpoint, it is damaged, or it does not fit the template.
    """
    folder = absolute_path(workdir / "checkpoints")
    steps = run_on_primary(lambda: _steps(folder))
    if not steps:
        raise UserError(f"--workdir: {workdir} has no checkpoint; train first")
    if step is not None and step not in steps:
        there = ", ".join(map(str, steps))
        raise UserError(f"--step: {workdir} has no checkpoint {step}; it has {there}")
    for one in reversed(steps) if step is None else [step]:
        try:
            return one, _read(folder, one, template).state
        except DamagedError as damage:
            if step is not None:
                raise UserError(f"--step: checkpoint {step} is damaged ({damage})") from damage
            _log.warning("checkpoint %d is damaged (%s)", one, damage)
    raise UserError(f"--workdir: no checkpoint in {folder} can be read")


def _read(folder: epath.Path, step: int, template: Any) -> Checkpoint:
    """Reads a checkpoint, or parts of it, on all processes.

    Raises:
      UserError: it is of another model.
      DamagedError: some process cannot read it; on all of them.
    """
    reason = None
    try:
        state, host = read_verified(folder / str(step), template)
    except UserError:
        raise
    except Exception as error:  # whatever the reader trips over
        reason = _reason(error)
    for told in all_processes_agree(reason):
        if told:
            raise DamagedError(told)
    return Checkpoint(step, state, host)


def _steps(folder: epath.Path) -> list[int]:
    return [int(path.name) for path in list_numbered(folder) if is_complete(path)]


def _noted(workdir: epath.Path) -> list[int]:
    """The steps that were saved, as far as the note tells."""
    try:
        return sorted(int(step) for step in read_json(workdir / _SAVED)["steps"])
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        _log.warning("%s is damaged (%s)", workdir / _SAVED, _reason(error))
        return []


def _listed(steps: Sequence[int]) -> str:
    return truncate(", ".join(map(str, steps[:20])))


def _reason(error: Exception) -> str:
    known = re.search(_KNOWN, str(error))
    if known:
        return known.group()
    line = (f"{type(error).__name__}: {error}".splitlines() or [""])[0][:200]
    return "".join(c for c in line if c.isprintable())
