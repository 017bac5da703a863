"""Training: from a config to a trained model, from wherever the last run stopped."""

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict
from tqdm.contrib.logging import logging_redirect_tqdm

from contextssl_jax.checkpoint import Checkpoint, Checkpoints
from contextssl_jax.data.contexts import read_batches
from contextssl_jax.errors import UserError
from contextssl_jax.evaluation.command import reported, write_report
from contextssl_jax.evaluation.evaluate import Evaluate, build_evaluation
from contextssl_jax.evaluation.monitor import Look, build_monitor
from contextssl_jax.experiment import Experiment, build_experiment
from contextssl_jax.figures.curves import draw_curves
from contextssl_jax.step import TrainState
from contextssl_jax.workdir import check, claim
from contextssl_jax.writer import NonFiniteError, Window, Writer

_log = logging.getLogger(__name__)


def train(config: ConfigDict, folder: str) -> None:
    """Trains the config's model in the folder, or goes on where its last checkpoint stands.

    Raises:
      UserError: an option is wrong, the folder is another run's, or the loss is not finite.
    """
    workdir = check(folder, config)
    experiment = build_experiment(config)
    template = experiment.template()
    look = build_monitor(config, experiment) if config.monitor.every else None
    report = build_evaluation(config, experiment) if config.eval.every else None
    if jax.process_index() == 0:  # only now: a mistake in the options must not claim the folder
        claim(workdir, config)
    with Checkpoints(workdir, config.checkpoint.keep) as checkpoints:
        try:
            _loop(config, workdir, experiment, look, report, checkpoints, template)
        except NonFiniteError as error:
            checkpoints.wait()
            kept = checkpoints.steps()
            last = f"the last good checkpoint is step {kept[-1]}" if kept else "nothing was saved"
            raise UserError(
                f"{error}; stopped, {last}. A lower train.learning_rate or a smaller train.clip"
                " may help, in another --workdir"
            ) from error


def _loop(
    config: ConfigDict,
    workdir: epath.Path,
    experiment: Experiment,
    look: Look | None,
    report: Evaluate | None,
    checkpoints: Checkpoints,
    template: TrainState,
) -> None:
    """Looks, saves, reports and steps, in that order, until the last step or a signal to stop."""
    parallel, total = experiment.parallel, config.train.steps
    found = checkpoints.restore(template)
    at = found or Checkpoint(0, experiment.init(), {"batches": 0, "window": [], "looked": -1})
    resumed = found is not None
    step, looked, window = at.step, at.host["looked"], Window(at.host["window"])
    _describe(config, experiment, at)
    state = parallel.replicate(at.state)
    data = read_batches(
        experiment.batches, at.host["batches"], config.data.threads, config.data.prefetch
    )
    del found, at, template  # the host's copies of the state
    writer = _writer(config, workdir, step, resumed)
    with writer, logging_redirect_tqdm(), _stop_signals() as stopped:
        compiled = False
        while True:
            last = step == total
            if look and looked != step and (last or step % config.monitor.every == 0):
                looked = step
                window.host()  # what is not finite is told by the step that made it
                writer.look(step, look(parallel.local(state.variables)))
            stop = last or stopped()
            if stop or (step and step % config.checkpoint.every == 0):
                host = {"batches": step, "window": window.host(), "looked": looked}
                fetched = parallel.fetch(state)
                _check_finite(step, fetched)
                checkpoints.save(Checkpoint(step, fetched, host))
            if report and step and (last or step % config.eval.every == 0):
                if jax.process_index() == 0 and not reported(workdir, step):
                    write_report(workdir, step, report(parallel.local(state.variables), step))
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
        draw_curves(workdir, workdir / "curves.png")
    _log.info("%s at step %d of %d; see %s", "done" if last else "stopped", step, total, workdir)


def _check_finite(step: int, state: TrainState) -> None:
    """Raises NonFiniteError for parameters or moments that must not be saved."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if not np.isfinite(leaf).all():
            raise NonFiniteError(step, f"state{jax.tree_util.keystr(path)}", math.nan)


def _writer(config: ConfigDict, workdir: epath.Path, step: int, resumed: bool) -> Writer:
    return Writer(
        workdir,
        start=step,
        resumed=resumed,
        total=config.train.steps,
        views=2 * config.data.contexts * config.data.pairs,
        tensorboard=config.log.tensorboard,
        enabled=jax.process_index() == 0,
    )


def _describe(config: ConfigDict, experiment: Experiment, at: Checkpoint) -> None:
    parts = {
        name: sum(leaf.size for leaf in jax.tree.leaves(tree))
        for name, tree in at.state.params.items()
    }
    _log.info(
        "%s on %s: %s parameters (%s); %d %s device(s), %s; from step %d of %d",
        config.method,
        experiment.dataset.name,
        f"{sum(parts.values()):,}",
        ", ".join(f"{name} {size:,}" for name, size in parts.items()),
        jax.device_count(),
        jax.devices()[0].platform,
        experiment.parallel.mode,
        at.step,
        config.train.steps,
    )


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Turns SIGTERM and Ctrl-C into a flag, so that the run saves and ends between two steps.

    A second signal acts as it would have without this.
    """
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        _log.info("%s: saving, then stopping", signal.Signals(number).name)
        for one in before:
            signal.signal(one, before[one])

    before = {one: signal.signal(one, receive) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(received)
    finally:
        for one in before:
            signal.signal(one, before[one])
