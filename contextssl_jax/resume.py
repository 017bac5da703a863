"""What a resumed run may change under a condition, and what it logs about it."""

import logging

import jax
from ml_collections import ConfigDict

from contextssl_jax.errors import UserError
from contextssl_jax.experiment import Experiment
from contextssl_jax.run.metadata import check_recorded_numerics
from contextssl_jax.run.workdir import Changes, check_workdir
from contextssl_jax.step import TrainState, build_schedule, warmup_steps
from contextssl_jax.storage.paths import resolve_path

_log = logging.getLogger(__name__)
_STEPS, _PARTS = "train.steps", "train.accumulate_steps"


def check_resume(folder: str, config: ConfigDict) -> Changes:
    """Check that the folder is empty or a run that can be resumed, and return changed options.

    Raises:
      UserError: see `check_workdir` and `check_recorded_numerics`.
    """
    changes = check_workdir(folder, config)
    check_recorded_numerics(resolve_path(folder, "--workdir"))
    return changes


def _batch_dependence(experiment: Experiment, template: TrainState) -> str | None:
    """Return why parts of a batch have another gradient than the whole; None if they do not."""
    if jax.tree.leaves(template.batch_stats):
        return "the model has batch statistics"
    if not experiment.method.independent_contexts:
        return "the loss compares the contexts of a batch"
    return None


def check_accumulation(changes: Changes, experiment: Experiment, template: TrainState) -> None:
    """Raise UserError if the number of parts has changed, and with it the gradient."""
    reason = _batch_dependence(experiment, template)
    if reason and _PARTS in changes:
        before, now = changes[_PARTS]
        raise UserError(
            f"--config.{_PARTS}: was {before}, is {now}, which changes the gradient, since"
            f" {reason}. Use --config.{_PARTS}={before}, or a different --workdir."
        )


def memory_advice(config: ConfigDict, experiment: Experiment, template: TrainState) -> str:
    """Return what helps a run that is out of memory: first what may change on resume."""
    resumable, new = [], ["fewer --config.data.contexts"]
    if not config.model.remat:
        resumable.append("--config.model.remat=True")
    if config.data.on_device:
        resumable.append("--config.data.on_device=False")
    parts = f"a larger --config.{_PARTS}"
    (new if _batch_dependence(experiment, template) else resumable).append(parts)
    resume = f"Resume with {' or '.join(resumable)}, or start" if resumable else "Start"
    return (
        f"{resume} anew, in a different --workdir, with {' or '.join(new)}. --mode=plan estimates"
        " the memory of a step"
    )


def log_schedule(train: ConfigDict, changes: Changes, step: int) -> None:
    """Log a warm-up that is shortened, and a schedule that is restated for another length."""
    warmup = warmup_steps(train)
    if warmup != train.warmup_steps:
        _log.info(
            "--config.train.warmup_steps: %d is not below --config.train.steps=%d; the warm-up"
            " takes a tenth of the run, %d steps",
            *(train.warmup_steps, train.steps, warmup),
        )
    if _STEPS not in changes:
        return
    earlier = train.copy_and_resolve_references()
    earlier.steps, now = changes[_STEPS]
    _log.info(
        "--config.%s: was %d, is %d; the learning-rate schedule is restated for the new length:"
        " %.3g at step %d, where it was %.3g, and 0 at step %d",
        *(_STEPS, earlier.steps, now, build_schedule(train)(step), step),
        *(build_schedule(earlier)(step), now),
    )
