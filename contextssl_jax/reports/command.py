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
from contextssl_jax.evaluation.stored import report_uses_context
from contextssl_jax.experiment import build_experiment
from contextssl_jax.reports.page import Picture, Table, html, markdown
from contextssl_jax.reports.tables import describe_source, tables
from contextssl_jax.run.checkpoint import load_checkpoint
from contextssl_jax.run.metadata import check_recorded_numerics
from contextssl_jax.run.workdir import check_same_run
from contextssl_jax.storage.paths import resolve_path

_log = logging.getLogger(__name__)
REPORT = "report.json"


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
    step, variables = load_checkpoint(workdir, experiment.template().variables, step)
    target = _folder(workdir, step)

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
            evaluation = run(variables, step, interrupter(should_stop))
        except Interrupted:
            raise SharedError(
                f"--mode=eval: a signal stopped the evaluation of step {step}, which has no report."
                " Run the same command again."
            ) from None

    def write() -> None:
        try:
            write_report(workdir, step, evaluation)
        except OSError as error:
            raise UserError(f"--workdir: cannot write {target} ({error})") from error

    run_on_primary(write)


def report_exists(workdir: epath.Path, step: int) -> bool:
    """Return whether the step's report is complete."""
    return (_folder(workdir, step) / REPORT).exists()


def write_report(workdir: epath.Path, step: int, evaluation: Evaluation) -> None:
    """Write report.json, report.md, report.html and the pictures to <workdir>/eval/<step>/.

    report.json is written last: where it exists, all other files do.
    """
    # Matplotlib delays a start, before which no figure is needed.
    from contextssl_jax.figures.adaptation import draw_adaptation
    from contextssl_jax.figures.curves import draw_curves
    from contextssl_jax.figures.neighbours import draw_neighbours

    folder = _folder(workdir, step)
    folder.mkdir(parents=True, exist_ok=True)
    report = evaluation.report
    draw_adaptation(report, folder / "adaptation.png")
    draw_neighbours(evaluation.neighbours, folder / "neighbours.png")
    curves = draw_curves(workdir, folder / "curves.png")
    p = report["provenance"]
    title = f"{p['method']} on {p['data']}, step {p['step']}"
    introduction = [
        "Does one model become equivariant to a transformation group, or invariant to it, by what"
        " its context shows? Probes predict the transformations from embeddings after contexts of"
        " each environment. Terms are defined in the glossary at the end.",
        describe_source(report),
    ]
    parts = _parts(report, curves)
    (folder / "report.md").write_text(markdown(title, introduction, parts))
    images = {p.file: (folder / p.file).read_bytes() for p in parts if isinstance(p, Picture)}
    (folder / "report.html").write_text(html(title, introduction, parts, images))
    (folder / REPORT).write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    for line in _summary(report):
        _log.info("%s", line)
    _log.info("see %s", folder / "report.html")


def _folder(workdir: epath.Path, step: int) -> epath.Path:
    return workdir / "eval" / str(step)


def _parts(report: dict[str, Any], curves: bool) -> list[Table | Picture]:
    """Return the page's tables and pictures in their order."""
    by_name = tables(report)
    adaptation = Picture(
        "Adaptation",
        "adaptation.png",
        "How well a probe predicts each group's parameters after contexts of growing length, one"
        " line for each environment. A model that adapts keeps a group after contexts that show it"
        " and loses it after contexts that show another one. Top: linear probe trained with Adam;"
        " bottom: weak ridge, which also uses directions of small variance.",
        "R² of each group against context length, one line for each environment",
    )
    neighbours = Picture(
        "Nearest neighbours",
        "neighbours.png",
        "The views nearest to the predicted target of (source, action to target) under each"
        " environment and for growing context, among the other views of the same record, and their"
        " distance from the target. First drawn context.",
        "Source, target and nearest views under each context",
    )
    history = Picture(
        "Training", "curves.png", "From metrics.jsonl.", "Losses and held-out R² by step"
    )
    first = [by_name.pop(name) for name in ("paper", "adaptivity") if name in by_name]
    last = [by_name.pop("seconds"), by_name.pop("glossary")]
    pictures = [history] if curves else []
    return [adaptation, *first, neighbours, *by_name.values(), *pictures, *last]


def _summary(report: dict[str, Any]) -> list[str]:
    """Return the console's lines: R² of the linear probe by length, and adaptivity."""
    p = report["provenance"]
    longest = str(p["lengths"][-1])
    lines = [f"step {p['step']}, {sum(p['seconds'].values()):.0f} s; R² of the linear probe:"]
    for environment, groups in report["r2"].items():
        cells = (
            f"{group} {' -> '.join(f'{v:5.2f}' for v in by['linear']['single'].values())}"
            for group, by in groups.items()
        )
        if not report_uses_context(p):  # without a context all environments are the same
            lines.append(f"  {'embeddings':18s} {'   '.join(cells)}")
            break
        lines.append(f"  {environment + ' context':18s} {'   '.join(cells)}")
    cells = (f"{g} {by['linear']['single']:5.2f}" for g, by in report["r2_features"].items())
    lines.append(f"  {'features':18s} {'   '.join(cells)}")
    if report["adaptivity"]:
        cells = (
            f"{g} {by['linear']['single'][longest]:.2f}" for g, by in report["adaptivity"].items()
        )
        lines.append(f"  adaptivity after {longest} tokens: {', '.join(cells)}")
    return lines
