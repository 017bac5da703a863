"""Training: from a config to a trained model, from wherever the last run stopped."""

import logging
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict
from tqdm.contrib.logging import logging_redirect_tqdm

from contextssl_jax.data import resume_free_options
from contextssl_jax.data.contexts import read_batches
from contextssl_jax.distributed.processes import run_on_primary, stop_signals
from contextssl_jax.errors import UserError, reraise_out_of_memory
from contextssl_jax.evaluation.evaluate import Evaluate, build_evaluation
from contextssl_jax.evaluation.monitor import Monitor, build_monitor
from contextssl_jax.experiment import Experiment, build_experiment
from contextssl_jax.figures.curves import draw_curves
from contextssl_jax.reports.command import report_exists, write_report
from contextssl_jax.run.checkpoint import Checkpoint, Checkpoints
from contextssl_jax.run.lock import Lock
from contextssl_jax.run.metadata import append_run_metadata
from contextssl_jax.run.metric_writer import MetricWindow, MetricWriter, NonFiniteError
from contextssl_jax.run.workdir import acquire_workdir, check_workdir
from contextssl_jax.step import TrainState
from contextssl_jax.storage.paths import resolve_path

_log = logging.getLogger(__name__)


def train(config: ConfigDict, folder: str, start: Callable[[], dict[str, Any]]) -> None:
    """Trains the config's model in the folder, or goes on where its last checkpoint stands.

    Args:
      config: of the run.
      folder: of the run.
      start: says what record.describe says of this start; process 0 alone asks it.

    Raises:
      UserError: an option is wrong, the folder is another run's or in use, a checkpoint could not
        be saved or none can be read, memory is out, or the loss is not finite.
    """
    run_on_primary(lambda: check_workdir(folder, config, resume_free_options()))
    workdir = resolve_path(folder, "--workdir")
    experiment = build_experiment(config)
    template = experiment.template()
    look = build_monitor(config, experiment) if config.monitor.every else None
    report = build_evaluation(config, experiment) if config.eval.every else None
    lock: Lock | None = None
    with ExitStack() as stack:

        def own() -> None:  # only now: a mistake in the options must not claim the folder
            nonlocal lock
            free = resume_free_options()
            lock = stack.enter_context(acquire_workdir(workdir, config, experiment.dataset, free))
            append_run_metadata(workdir, start())

        run_on_primary(own)
        checkpoints = stack.enter_context(Checkpoints(workdir, config.checkpoint.keep))
        try:
            with reraise_out_of_memory(
                "lower data.contexts, or keep the batch and set train.accumulate_steps or"
                " model.remat; --mode=plan tells what a step needs"
            ):
                _loop(config, workdir, lock, experiment, look, report, checkpoints, template)
        except NonFiniteError as error:
            checkpoints.wait()
            kept = checkpoints.steps()
            last = f"the last good checkpoint is step {kept[-1]}" if kept else "nothing was saved"
            raise UserError(
                f"{error}; stopped, {last}. {_reason(experiment, error.step)}"
            ) from error


def _loop(
    config: ConfigDict,
    workdir: epath.Path,
    lock: Lock | None,
    experiment: Experiment,
    look: Monitor | None,
    report: Evaluate | None,
    checkpoints: Checkpoints,
    template: TrainState,
) -> None:
    """Looks, saves, reports and steps, in that order, until the last step or a signal to stop."""
    parallel, total = experiment.parallel, config.train.steps
    saved = checkpoints.restore(template)
    if saved:
        _check_position(saved, total, workdir)
    at = saved or Checkpoint(0, experiment.init(), {"batches": 0, "window": [], "looked": -1})
    resumed = saved is not None
    step, looked, window = at.step, at.host["looked"], MetricWindow(at.host["window"])
    _describe(config, experiment, at)
    state = parallel.replicate(at.state)
    data = read_batches(
        experiment.batches, at.host["batches"], config.data.threads, config.data.prefetch
    )
    del saved, at, template  # the host's copies of the state
    writer = _writer(config, workdir, step, resumed)
    with writer, logging_redirect_tqdm(), stop_signals() as stopped:
        compiled = False
        while True:
            last = step == total
            if look and looked != step and (last or step % config.monitor.every == 0):
                looked = step
                window.host()  # what is not finite is told by the step that made it
                writer.look(step, look(parallel.local(state.variables)))
            stop = stopped(step) or last
            if stop or (step and step % config.checkpoint.every == 0):
                if lock:
                    lock.check()
                host = {"batches": step, "window": window.host(), "looked": looked}
                fetched = parallel.fetch(state)
                _check_finite(step, fetched)
                checkpoints.save(Checkpoint(step, fetched, host), parallel.whole(state))
            if report and step and (last or step % config.eval.every == 0):
                if not run_on_primary(partial(report_exists, workdir, step)):
                    found = report(parallel.local(state.variables), step)
                    writer.attempt("the report", partial(write_report, workdir, step, found))
            if stop:
                break
            began = time.perf_counter()
            batch = next(data)
            wait = time.perf_counter() - began
            state, metrics = experiment.step(state, parallel.shard(batch))
            step += 1
            # The first step compiles: its time says nothing of the others'.
            window.add(step, metrics, began if compiled else math.nan, wait)
            compiled = True
            if step % config.log.every == 0:
                writer.metrics(step, window.close())
            writer.advance()
        checkpoints.wait()
        if last:
            writer.attempt("curves.png", partial(draw_curves, workdir, workdir / "curves.png"))
    _log.info("%s at step %d of %d; see %s", "done" if last else "stopped", step, total, workdir)


def _check_position(saved: Checkpoint, total: int, workdir: epath.Path) -> None:
    """Raises UserError for a checkpoint that says of itself what none of this run's could."""
    batches, looked, window = (saved.host.get(name) for name in ("batches", "looked", "window"))
    if (
        batches != saved.step
        or saved.step > total
        or not isinstance(looked, int)
        or not isinstance(window, list)
        or len(window) > saved.step
        or not all(isinstance(step, dict) for step in window)
        or not all(isinstance(value, float) for step in window for value in step.values())
    ):
        raise UserError(
            f"{workdir}: checkpoint {saved.step} is none of this run's; choose another --workdir"
        )


def _check_finite(step: int, state: TrainState) -> None:
    """Raises NonFiniteError for parameters or moments that must not be saved."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if not np.isfinite(leaf).all():
            raise NonFiniteError(step, f"state{jax.tree_util.keystr(path)}", math.nan)


def _writer(config: ConfigDict, workdir: epath.Path, step: int, resumed: bool) -> MetricWriter:
    return MetricWriter(
        workdir,
        start=step,
        resumed=resumed,
        total=config.train.steps,
        views=2 * config.data.contexts * config.data.pairs,
        tensorboard=config.log.tensorboard,
        enabled=jax.process_index() == 0,
    )


def _reason(experiment: Experiment, step: int) -> str:
    """Says whether the batch of a step that is not finite was so itself."""
    batch = experiment.batches[step - 1]
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        if np.issubdtype(leaf.dtype, np.floating) and not np.isfinite(leaf).all():
            context = np.argwhere(~np.isfinite(leaf))[0][0]
            return (
                f"Its batch is not finite either: {jax.tree_util.keystr(path).strip('.')} of"
                f" context {context}. Mend the data, then use another --workdir"
            )
    return (
        "Its batch is finite. A lower train.learning_rate or a smaller train.clip may help, in"
        " another --workdir"
    )


def _describe(config: ConfigDict, experiment: Experiment, at: Checkpoint) -> None:
    parts = {
        name: sum(leaf.size for leaf in jax.tree.leaves(tree))
        for name, tree in at.state.params.items()
    }
    _log.info(
        "%s on %s: %s parameters (%s); %d %s device(s), %s%s; from step %d of %d",
        config.method,
        experiment.dataset.name,
        f"{sum(parts.values()):,}",
        ", ".join(f"{name} {size:,}" for name, size in parts.items()),
        jax.device_count(),
        jax.devices()[0].platform,
        experiment.parallel.mode,
        f", {jax.process_count()} processes" if jax.process_count() > 1 else "",
        at.step,
        config.train.steps,
    )
