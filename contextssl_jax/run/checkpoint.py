"""Asynchronous checkpoints, with checksums that are verified when a checkpoint is restored.

Each process writes a part of the saved arrays, which may be split over devices. Every checkpoint
stores checksums, and `checkpoints.json` lists the saved steps, so that damaged and missing
checkpoints are detected.
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
_SAVED_STEPS = "checkpoints.json"
_RENAMED_HOST_DATA = {"looked": "monitored_step"}  # of earlier versions
# The relevant part of Orbax's long error messages.
_DISK_ERRORS = "No space left on device|Disk quota exceeded|File too large|Read-only file system"


class DamagedError(Exception):
    """A checkpoint is damaged. The message states the reason."""


class Checkpoint(NamedTuple):
    """The content of a checkpoint."""

    step: int
    state: Any  # the train state: global arrays to save, NumPy arrays when restored
    host: dict[str, Any]  # host data: position in the data, metrics since the last log line, the
    # last monitored step, and under "inputs" the statistics of the data set; see data.inputs


def initial_host_data(statistics: dict[str, Any]) -> dict[str, Any]:
    """Return the host data of a run that has taken no step; see `Checkpoint.host`."""
    return {"batches": 0, "window": [], "monitored_step": -1, "inputs": statistics}


class _Manager(ocp.CheckpointManager):
    """Orbax's manager, without its own check for stop signals.

    That check would tell the runtime the training step as the number of the last check, although
    `stop_signals` numbers its checks differently; the runtime would then miss a signal.
    """

    def reached_preemption(self, step: int) -> bool:
        return False


class Checkpoints:
    """The checkpoints of a workdir, in `<workdir>/checkpoints/<step>/`.

    Saves are asynchronous and atomic: a folder is renamed to its step once it is complete. Every
    process must call the same methods in the same order.
    """

    def __init__(self, workdir: epath.Path, keep: int) -> None:
        """Open the folder, and create it if necessary.

        Args:
          workdir: the workdir of the run.
          keep: number of checkpoints to keep; older ones are deleted.
        """
        self._folder = absolute_path(workdir / "checkpoints")  # Orbax rejects relative paths
        self._folder.mkdir(parents=True, exist_ok=True)
        self._workdir, self._damaged = workdir, workdir / "damaged"
        self._save_failed = False
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(keep),
            cleanup_tmp_directories=True,  # left by interrupted saves
        )
        self._manager = _Manager(self._folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._save_failed:
            return
        try:
            self._manager.close()  # waits for a save in progress
        except Exception as failure:  # Orbax and TensorStore raise many types
            # A full disk may first fail another file; the checkpoint matters more to the user.
            if error is None or isinstance(error, UserError):
                raise self._save_error(None, failure) from failure

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, intact or damaged, in ascending order."""
        return _list_steps(self._folder)

    def save(self, checkpoint: Checkpoint) -> None:
        """Start an asynchronous save, unless the step is already saved.

        Args:
          checkpoint: the checkpoint. Its state is on the devices of all processes, replicated or
            split; later steps may reuse its memory.

        Raises:
          UserError: this save or the previous one failed, for example because the disk is full.
        """
        if run_on_primary(lambda: checkpoint.step in self.steps()):
            return
        self.wait()
        host_data = with_checksums(checkpoint.step, checkpoint.state, checkpoint.host)
        try:
            self._manager.save(
                checkpoint.step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(checkpoint.state), host=ocp.args.JsonSave(host_data)
                ),
            )
        except Exception as error:  # Orbax and TensorStore raise many types
            raise self._save_error(checkpoint.step, error) from error

    def wait(self) -> None:
        """Wait for a save in progress, and update `checkpoints.json`.

        Raises:
          UserError: a save failed.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # Orbax and TensorStore raise many types
            raise self._save_error(None, error) from error
        if jax.process_index() == 0 and (steps := self.steps()):
            try:
                self._write_saved_steps(steps)
            except OSError as error:
                raise self._save_error(None, error) from error

    def restore(self, template: Any) -> Checkpoint | None:
        """Restore the newest intact checkpoint.

        Damaged checkpoints are moved to `<workdir>/damaged/` with a warning that states the reason.

        Args:
          template: a state of the same structure, shapes and types; its values are ignored.

        Returns:
          The checkpoint; None if no step was ever saved.

        Raises:
          UserError: every checkpoint is damaged or missing, or belongs to a different model.
        """
        steps, saved = run_on_primary(lambda: [self.steps(), _read_saved_steps(self._workdir)])
        # Older steps may have been deleted by `keep` since checkpoints.json was written.
        missing = [step for step in saved if not steps or step > steps[-1]]
        if steps and missing:
            _log.warning("%s: checkpoint %s is missing", self._folder, _join(missing))
        for step in reversed(steps):
            try:
                return _restore_step(self._folder, step, template)
            except DamagedError as damage:
                _log.warning("checkpoint %d is damaged (%s); trying the previous one", step, damage)
            run_on_primary(functools.partial(self._move_to_damaged, step))
            self._manager.reload()
        if steps:
            raise UserError(
                f"{self._folder}: all checkpoints are damaged and were moved to {self._damaged}."
                " Restore one from a backup, or use a different --workdir to train from scratch."
            )
        if missing:
            raise UserError(
                f"{self._folder}: the checkpoints of steps {_join(missing)} are missing. Restore"
                " one from a backup, or use a different --workdir to train from scratch."
            )
        return None

    def _move_to_damaged(self, step: int) -> None:
        existing = [path.name for path in list_folder(self._damaged)]
        candidates = [str(step), *(f"{step}.{i}" for i in range(1, len(existing) + 1))]
        name = next(candidate for candidate in candidates if candidate not in existing)
        move_folder(self._folder / str(step), self._damaged / name)

    def _write_saved_steps(self, steps: Sequence[int]) -> None:
        if _read_saved_steps(self._workdir) != list(steps):
            write_atomic(self._workdir / _SAVED_STEPS, json.dumps({"steps": list(steps)}) + "\n")

    def _save_error(self, step: int | None, error: Exception) -> UserError:
        self._save_failed = True
        steps = self.steps()
        last = f"The last checkpoint is step {steps[-1]}" if steps else "There is no checkpoint"
        name = "a checkpoint" if step is None else f"checkpoint {step}"
        return UserError(f"{self._folder}: cannot save {name} ({_summarize(error)}). {last}.")


def has_checkpoints(workdir: epath.Path) -> bool:
    """Return whether a run has saved a checkpoint, which may be damaged or missing by now."""
    steps = _list_steps(absolute_path(workdir / "checkpoints"))
    return bool(steps) or (workdir / _SAVED_STEPS).exists()


def load_checkpoint(
    workdir: epath.Path,
    template: dict[str, Any] | None,
    step: int | None,
    option: str = "--workdir",
) -> Checkpoint:
    """Load parts of a saved state, without modifying the folder, which a run may be using.

    Args:
      workdir: the workdir of the run.
      template: the parts by their names in the state; the values of their leaves are ignored.
        None for `params` and `batch_stats` of any model.
      step: the step to load; None for the newest intact checkpoint.
      option: the option that sets the workdir, for error messages.

    Returns:
      The checkpoint of a step which is the same on all processes, with those parts as its state.

    Raises:
      UserError: the checkpoint does not exist, is damaged, or does not match the template.
    """
    folder = absolute_path(workdir / "checkpoints")
    steps = run_on_primary(lambda: _list_steps(folder))
    if not steps:
        raise UserError(f"{option}: {workdir} has no checkpoint. Train first.")
    if step is not None and step not in steps:
        available = ", ".join(map(str, steps))
        raise UserError(f"--step: {workdir} has no checkpoint {step}. Choose one of {available}.")
    for candidate in reversed(steps) if step is None else [step]:
        try:
            return _restore_step(folder, candidate, template)
        except DamagedError as damage:
            if step is not None:
                raise UserError(
                    f"--step: checkpoint {step} is damaged ({damage}). Choose a different step."
                ) from damage
            _log.warning("checkpoint %d is damaged (%s)", candidate, damage)
    raise UserError(
        f"{option}: all checkpoints in {folder} are damaged. Restore one from a backup."
    )


def _restore_step(folder: epath.Path, step: int, template: Any) -> Checkpoint:
    """Restore a checkpoint, or parts of it, on all processes.

    Raises:
      UserError: it belongs to a different model.
      DamagedError: at least one process cannot read it. All processes raise it.
    """
    reason = None
    try:
        state, host = read_verified(folder / str(step), template)
        for old, new in _RENAMED_HOST_DATA.items():
            if old in host:
                host[new] = host.pop(old)
    except UserError:
        raise
    except Exception as error:  # damage raises many types
        reason = _summarize(error)
    for process_reason in all_processes_agree(reason):
        if process_reason:
            raise DamagedError(process_reason)
    return Checkpoint(step, state, host)


def _list_steps(folder: epath.Path) -> list[int]:
    return [int(path.name) for path in list_numbered(folder) if is_complete(path)]


def _read_saved_steps(workdir: epath.Path) -> list[int]:
    """Return the steps in checkpoints.json; an empty list if it is missing or damaged."""
    try:
        return sorted(int(step) for step in read_json(workdir / _SAVED_STEPS)["steps"])
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        _log.warning("%s is damaged (%s)", workdir / _SAVED_STEPS, _summarize(error))
        return []


def _join(steps: Sequence[int]) -> str:
    return truncate(", ".join(map(str, steps[:20])))


def _summarize(error: Exception) -> str:
    disk_error = re.search(_DISK_ERRORS, str(error))
    if disk_error:
        return disk_error.group()
    line = (f"{type(error).__name__}: {error}".splitlines() or [""])[0][:200]
    return "".join(c for c in line if c.isprintable())
