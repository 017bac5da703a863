"""--mode=eval: evaluate a checkpoint and write its report, pictures and page."""

import json
import logging
from contextlib import nullcontext
from functools import partial
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from contextssl_jax.distributed.parallel import Parallel
from contextssl_jax.distributed.processes import (
    Interrupted,
    interrupter,
    run_on_primary,
    stop_signals,
)
from contextssl_jax.errors import SharedError, UserError, reraise_out_of_memory
from contextssl_jax.evaluation.evaluate import Evaluation, build_evaluation
from contextssl_jax.evaluation.evaluators import all_metrics
from contextssl_jax.evaluation.evaluators.trees import values
from contextssl_jax.evaluation.stored import REPORT, report_folder
from contextssl_jax.experiment import build_experiment
from contextssl_jax.progress import task
from contextssl_jax.reports.explorer import explorer
from contextssl_jax.reports.page import Picture, Table, html, markdown
from contextssl_jax.reports.summary import explanation, statements
from contextssl_jax.reports.tables import describe_source, tables
from contextssl_jax.run.checkpoint import load_checkpoint
from contextssl_jax.run.dashboard import ReportSummary
from contextssl_jax.run.metadata import check_recorded_numerics
from contextssl_jax.run.wandb import WandbWriter
from contextssl_jax.run.workdir import check_same_run
from contextssl_jax.storage.paths import resolve_path

_log = logging.getLogger(__name__)
Part = Table | Picture
_NEIGHBOURS = Picture(
    "Nearest views",
    "neighbours.png",
    "The views nearest to the predicted target of (source, action to target) under each environment"
    " and for growing context, among the other views of the same record, and their distance from"
    " the target. First drawn context.",
    "Source, target and nearest views under each context",
)


def evaluate_checkpoint(config: ConfigDict, folder: str, step: int | None) -> None:
    """Evaluate a checkpoint of the folder and write <folder>/eval/<step>/.

    Args:
      config: of the run; its section `eval` may differ from that of the training.
      folder: of the run; no other file of it changes.
      step: of the checkpoint; None for the newest.

    Raises:
      UserError: no such checkpoint, a checkpoint of another config, a wrong option, or settings of
        JAX under which random numbers or types are not those of the run.
    """
    run_on_primary(lambda: check_same_run(folder, config))
    workdir = resolve_path(folder, "--workdir")
    run_on_primary(partial(check_recorded_numerics, workdir))
    # The reader splits views over devices, independently of the training's parallelism.
    experiment = build_experiment(config, parallel=Parallel("jit", tuple(jax.local_devices()[:1])))
    run = build_evaluation(config, experiment)
    with task("reading the checkpoint"):
        checkpoint = load_checkpoint(workdir, experiment.template().variables, step)
    step = checkpoint.step
    target = report_folder(workdir, step)

    def create() -> None:  # before the evaluation, so that errors come early
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--workdir: cannot write {target} ({error})") from error

    run_on_primary(create)
    _log.info("evaluating step %d of %s", step, workdir)
    # A single process ends at once by the signal's default effect.
    several = jax.process_count() > 1
    signals = stop_signals("stopping") if several else nullcontext(lambda: False)
    with (
        reraise_out_of_memory("Decrease --config.eval.batch"),
        signals as should_stop,
    ):
        try:
            evaluation = run(checkpoint.state, step, interrupter(should_stop))
        except Interrupted:
            raise SharedError(
                f"--mode=eval: a signal stopped the evaluation of step {step}, which has no report."
                " Run the same command again."
            ) from None

    def write() -> None:
        try:
            with task("writing the report"):
                write_report(workdir, step, evaluation)
        except OSError as error:
            raise UserError(f"--workdir: cannot write {target} ({error})") from error
        if config.log.wandb:
            dashboard = WandbWriter(workdir, config.to_dict(), step)
            read_summary(workdir, step).write(dashboard, step)
            dashboard.close(failed=False)

    run_on_primary(write)


def report_exists(workdir: epath.Path, step: int) -> bool:
    """Return whether the step's report is complete."""
    return (report_folder(workdir, step) / REPORT).exists()


def write_report(workdir: epath.Path, step: int, evaluation: Evaluation) -> None:
    """Write report.json, report.md, report.html and the pictures to <workdir>/eval/<step>/.

    report.json is written last: where it exists, all other files do.
    """
    # Matplotlib delays a start, before which no figure is needed.
    from contextssl_jax.figures.adaptation import draw_adaptation
    from contextssl_jax.figures.curves import draw_curves
    from contextssl_jax.figures.neighbours import draw_neighbours

    folder = report_folder(workdir, step)
    folder.mkdir(parents=True, exist_ok=True)
    report = evaluation.report
    draw_adaptation(report, folder / "adaptation.png")
    draw_neighbours(evaluation.neighbours, folder / "neighbours.png")
    curves = draw_curves(workdir, folder / "curves.png")
    p = report["provenance"]
    title = f"{p['method']} on {p['data']}, step {p['step']}"
    answer = statements(report)
    introduction = [*explanation(report), describe_source(report)]
    first, last = _parts(report, curves)
    drawn = [*first, _NEIGHBOURS, *last]
    (folder / "report.md").write_text(markdown(title, introduction, drawn, answer))
    parts = [*first, explorer(evaluation.neighbours), *last]
    images = {p.file: (folder / p.file).read_bytes() for p in parts if isinstance(p, Picture)}
    (folder / "report.html").write_text(html(title, introduction, parts, images, answer))
    (folder / REPORT).write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    _log.info("step %d, %.0f s", p["step"], sum(p["seconds"].values()))
    for line in answer:
        _log.info("  %s %s: %s", *line)
    _log.info("see %s", folder / "report.html")


def read_summary(workdir: epath.Path, step: int) -> ReportSummary:
    """Return the values of a report and its pictures."""
    folder = report_folder(workdir, step)
    report = json.loads((folder / REPORT).read_text())
    found = {
        "/".join((metric.key, *keys.values())): value
        for metric in all_metrics()
        for keys, value in values(metric, report)
    }
    pictures = {path.stem: path.read_bytes() for path in sorted(folder.glob("*.png"))}
    return ReportSummary(found, pictures)


def _parts(report: dict[str, Any], curves: bool) -> tuple[list[Part], list[Part]]:
    """Return the page's parts before and after the nearest views, the latter folded."""
    by_name = tables(report)
    adaptation = Picture(
        "Adaptation",
        "adaptation.png",
        "R² of each group after contexts of growing length, one line for each environment. A model"
        " that adapts keeps a group after contexts that show it and loses it after others. Top:"
        " linear probe; bottom: weak ridge, which also uses directions of small variance.",
        "R² of each group against context length, one line for each environment",
    )
    history = Picture(
        "Training", "curves.png", "From metrics.jsonl.", "Losses and held-out R² by step"
    )
    end = [by_name.pop(name) for name in ("methods", "seconds", "glossary")]
    tables_and_curves: list[Part] = [*by_name.values(), *([history] if curves else []), *end]
    return [adaptation], [part._replace(folded=True) for part in tables_and_curves]
