"""Training of a config's model, with resume from the newest checkpoint."""

import logging
import math
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict
from tqdm.contrib.logging import logging_redirect_tqdm

from contextssl_jax.data.contexts import read_batches
from contextssl_jax.data.inputs import input_statistics
from contextssl_jax.distributed.processes import (
    Interrupted,
    interrupter,
    run_on_primary,
    stop_signals,
)
from contextssl_jax.errors import UserError, reraise_out_of_memory
from contextssl_jax.evaluation.evaluate import Evaluate, Evaluation, build_evaluation
from contextssl_jax.evaluation.monitor import Monitor, build_monitor
from contextssl_jax.experiment import Experiment, build_experiment
from contextssl_jax.progress import task
from contextssl_jax.reports.command import read_summary, report_exists, write_report
from contextssl_jax.resume import check_accumulation, check_resume, log_schedule, memory_advice
from contextssl_jax.run.checkpoint import (
    Checkpoint,
    Checkpoints,
    has_checkpoints,
    initial_host_data,
)
from contextssl_jax.run.dashboard import open_dashboards
from contextssl_jax.run.finite import NonFiniteError, check_finite, explain_batch
from contextssl_jax.run.initial_weights import InitialWeights, load_initial_weights
from contextssl_jax.run.lock import Lock
from contextssl_jax.run.metadata import append_run_metadata
from contextssl_jax.run.metric_writer import MetricWindow, MetricWriter
from contextssl_jax.run.step_trace import StepTrace
from contextssl_jax.run.workdir import Changes, acquire_workdir, mark_interrupted
from contextssl_jax.step import TrainState
from contextssl_jax.storage.paths import resolve_path

_log = logging.getLogger(__name__)


def train(
    config: ConfigDict,
    folder: str,
    collect_metadata: Callable[[], dict[str, Any]],
    traced_steps: range = range(0),
) -> None:
    """Train the config's model in a folder, resuming from its newest checkpoint.

    Args:
      config: the options of the run.
      folder: the workdir of the run.
      collect_metadata: returns the metadata of this start. Called on process 0 only.
      traced_steps: steps of which process 0 writes a profiler's trace.

    Raises:
      UserError: an option is invalid, the folder belongs to another run or is in use, a checkpoint
        cannot be saved or read, a device is out of memory, or the loss is not finite.
    """
    changes = run_on_primary(lambda: check_resume(folder, config))
    workdir = resolve_path(folder, "--workdir")
    experiment = build_experiment(config)
    template = experiment.template()
    check_accumulation(changes, experiment, template)
    run_monitor = build_monitor(config, experiment) if config.monitor.every else None
    evaluate = build_evaluation(config, experiment) if config.eval.every else None
    initial_weights = None
    if config.train.init_from and not run_on_primary(lambda: has_checkpoints(workdir)):
        initial_weights = load_initial_weights(config, template.variables)
    lock: Lock | None = None
    with ExitStack() as stack:

        def acquire() -> None:  # only now, so that invalid options do not acquire the workdir
            nonlocal lock
            lock = stack.enter_context(acquire_workdir(workdir, config, experiment.dataset))
            source = {"initial_weights": initial_weights.source} if initial_weights else {}
            append_run_metadata(workdir, collect_metadata() | source | {"changes": changes})

        run_on_primary(acquire)
        steps = traced_steps if jax.process_index() == 0 else range(0)
        trace = stack.enter_context(StepTrace(workdir, steps))
        checkpoints = stack.enter_context(Checkpoints(workdir, config.checkpoint.keep))
        try:
            with reraise_out_of_memory(memory_advice(config, experiment, template)):
                _training_loop(
                    *(config, workdir, lock, experiment, run_monitor, evaluate, checkpoints),
                    *(template, initial_weights, changes, trace),
                )
        except NonFiniteError as error:
            checkpoints.wait()
            saved = checkpoints.steps()
            last = f"The last checkpoint is step {saved[-1]}" if saved else "There is no checkpoint"
            raise UserError(
                f"{error}. {last}. {explain_batch(error.step, experiment.batches[error.step - 1])}"
            ) from error


def _training_loop(
    config: ConfigDict,
    workdir: epath.Path,
    lock: Lock | None,
    experiment: Experiment,
    run_monitor: Monitor | None,
    evaluate: Evaluate | None,
    checkpoints: Checkpoints,
    template: TrainState,
    initial_weights: InitialWeights | None,
    changes: Changes,
    trace: StepTrace,
) -> None:
    """Monitor, save, evaluate and train, in that order, until the last step or a stop signal."""
    parallel, total_steps = experiment.parallel, config.train.steps
    with task("reading the checkpoint"):
        restored = checkpoints.restore(template)
    if restored:
        _check_host_data(restored, total_steps, workdir)
    statistics = input_statistics(experiment.dataset).to_json()
    initial = restored or _initial_checkpoint(experiment, initial_weights, statistics)
    resumed = restored is not None
    step, monitored_step = initial.step, initial.host["monitored_step"]
    window = MetricWindow(initial.host["window"])
    unwritten: int | None = None  # step whose line of metrics is due
    _log_start(config, experiment, initial)
    log_schedule(config.train, changes, initial.step)
    state = parallel.place(initial.state)
    constants = parallel.replicate((experiment.key_data, experiment.images))
    batches = read_batches(
        experiment.batches, initial.host["batches"], config.data.threads, config.data.prefetch
    )
    del restored, initial, template  # free the host's copies of the state
    writer = _build_writer(config, workdir, step, monitored_step, resumed)

    def write_line() -> None:
        nonlocal unwritten
        if unwritten is not None:
            writer.write_metrics(unwritten, window.pop_means(unwritten))
            unwritten = None

    def save() -> None:
        write_line()
        if lock:
            lock.check()
        host_data = {
            **{"batches": step, "window": window.fetch(), "monitored_step": monitored_step},
            "inputs": statistics,
        }
        arrays = parallel.global_arrays(state)
        check_finite(step, arrays)
        checkpoints.save(Checkpoint(step, arrays, host_data))

    def write(step: int, evaluation: Evaluation) -> None:
        with task("writing the report"):
            write_report(workdir, step, evaluation)
        writer.write_report(step, read_summary(workdir, step))

    signals = stop_signals("saving, then stopping")
    with writer, logging_redirect_tqdm(), signals as should_stop:
        check_stop = interrupter(should_stop)
        compiled = incomplete = False
        while True:
            is_last = step == total_steps
            if run_monitor and monitored_step != step:
                if is_last or step % config.monitor.every == 0:
                    write_line()
                    window.fetch()  # a non-finite loss raises here, with the step that caused it
                    try:
                        with task("monitor"):
                            values = run_monitor(parallel.local_copy(state.variables), check_stop)
                        writer.write_monitor(step, values)
                        monitored_step = step
                    except Interrupted:  # the next start runs the monitor
                        incomplete = True
            stop = should_stop()
            if stop or is_last or (step and step % config.checkpoint.every == 0):
                save()
            if evaluate and step and (is_last or step % config.eval.every == 0):
                if not run_on_primary(partial(report_exists, workdir, step)):
                    write_line()
                    try:
                        check_stop()
                        made = evaluate(parallel.local_copy(state.variables), step, check_stop)
                        writer.try_write("the report", partial(write, step, made))
                    except Interrupted:  # the next start evaluates this step
                        stop = incomplete = True
                        save()
            if stop or is_last:
                break
            start = time.perf_counter()
            batch = next(batches)
            data_wait = time.perf_counter() - start
            compiling = nullcontext() if compiled else task("compiling the train step")
            with compiling, trace.step(step + 1):
                state, metrics = experiment.step(state, parallel.shard(batch), *constants)
            step += 1
            # The first step includes compilation, so its time is not recorded.
            window.add(step, metrics, start if compiled else math.nan, data_wait)
            trace.finish(step, metrics)
            compiled = True
            # A line is written while the device computes the step after it, so that the device
            # does not wait for the host.
            write_line()
            if step % config.log.every == 0:
                unwritten = step
            writer.advance()
        with task("saving the checkpoint"):
            checkpoints.wait()
        if is_last:
            writer.try_write("interrupted.json", partial(mark_interrupted, workdir, incomplete))
        if is_last and not incomplete:
            from contextssl_jax.figures.curves import draw_curves  # Matplotlib delays a start

            writer.try_write("curves.png", partial(draw_curves, workdir, workdir / "curves.png"))
    outcome = "done" if is_last and not incomplete else "stopped"
    _log.info("%s at step %d of %d; see %s", outcome, step, total_steps, workdir)


def _initial_checkpoint(
    experiment: Experiment, initial_weights: InitialWeights | None, statistics: dict[str, Any]
) -> Checkpoint:
    with task("initializing the model"):
        state = experiment.init()
    if initial_weights:
        state = initial_weights.replace(state)
        _log.info("initial weights: %s", initial_weights.source)
    return Checkpoint(0, state, initial_host_data(statistics))


def _check_host_data(restored: Checkpoint, total_steps: int, workdir: epath.Path) -> None:
    """Raise UserError if a checkpoint's host data cannot come from this run."""
    batches, monitored_step, window = (
        restored.host.get(name) for name in ("batches", "monitored_step", "window")
    )
    if (
        batches != restored.step
        or restored.step > total_steps
        or not isinstance(monitored_step, int)
        or not isinstance(window, list)
        or len(window) > restored.step
        or not all(isinstance(step, dict) for step in window)
        or not all(isinstance(value, float) for step in window for value in step.values())
    ):
        raise UserError(
            f"{workdir}: checkpoint {restored.step} is not from this run. Use a different"
            " --workdir."
        )


def _build_writer(
    config: ConfigDict, workdir: epath.Path, step: int, monitored_step: int, resumed: bool
) -> MetricWriter:
    is_primary = jax.process_index() == 0
    return MetricWriter(
        workdir,
        start=step,
        monitored_step=monitored_step,
        resumed=resumed,
        total_steps=config.train.steps,
        views_per_step=2 * config.data.contexts * config.data.pairs,
        dashboards=open_dashboards(config, workdir, step) if is_primary else (),
        enabled=is_primary,
    )


def _log_start(config: ConfigDict, experiment: Experiment, initial: Checkpoint) -> None:
    parts = {
        name: sum(leaf.size for leaf in jax.tree.leaves(tree))
        for name, tree in initial.state.params.items()
    }
    _log.info(
        "%s on %s: %s parameters (%s); %d %s device(s), %s%s%s; from step %d of %d",
        config.method,
        experiment.dataset.name,
        f"{sum(parts.values()):,}",
        ", ".join(f"{name} {size:,}" for name, size in parts.items()),
        jax.device_count(),
        jax.devices()[0].platform,
        experiment.parallel.mode,
        ", sharded optimizer state" if experiment.parallel.shards > 1 else "",
        f", {jax.process_count()} processes" if jax.process_count() > 1 else "",
        initial.step,
        config.train.steps,
    )
