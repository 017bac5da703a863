"""--mode=eval: from a checkpoint to a folder with its report, pictures and page."""

import json
import logging
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from contextssl_jax.distributed.parallel import Parallel
from contextssl_jax.distributed.processes import run_on_primary
from contextssl_jax.errors import UserError, reraise_out_of_memory
from contextssl_jax.evaluation.evaluate import Evaluation, build_evaluation
from contextssl_jax.evaluation.stored import report_uses_context
from contextssl_jax.experiment import build_experiment
from contextssl_jax.figures.adaptation import draw_adaptation
from contextssl_jax.figures.curves import draw_curves
from contextssl_jax.figures.neighbours import draw_neighbours
from contextssl_jax.reports.page import Picture, Table, html, markdown
from contextssl_jax.reports.tables import source, tables
from contextssl_jax.run.checkpoint import load_checkpoint
from contextssl_jax.run.workdir import check_workdir
from contextssl_jax.storage.paths import resolve_path

_log = logging.getLogger(__name__)
REPORT = "report.json"


def evaluate_checkpoint(config: ConfigDict, folder: str, step: int | None) -> None:
    """Evaluates a checkpoint of the folder, and writes <folder>/eval/<step>/.

    Args:
      config: of the run; the section `eval` may differ from the one that it was trained with.
      folder: of the run; nothing else in it changes.
      step: of the checkpoint; None is the newest.

    Raises:
      UserError: no such checkpoint, one of another config, or a mistake in the options.
    """
    run_on_primary(lambda: check_workdir(folder, config))
    workdir = resolve_path(folder, "--workdir")
    # Views are split over devices by the reader, whatever trained.
    experiment = build_experiment(config, parallel=Parallel("jit", tuple(jax.local_devices()[:1])))
    run = build_evaluation(config, experiment)
    step, variables = load_checkpoint(workdir, experiment.template().variables, step)
    place = _folder(workdir, step)

    def make() -> None:  # before the work, not after it
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--workdir: cannot write {place} ({error})") from error

    run_on_primary(make)
    _log.info("evaluating step %d of %s", step, workdir)
    with reraise_out_of_memory("Decrease --config.eval.batch"):
        evaluation = run(variables, step)

    def write() -> None:
        try:
            write_report(workdir, step, evaluation)
        except OSError as error:
            raise UserError(f"--workdir: cannot write {place} ({error})") from error

    run_on_primary(write)


def report_exists(workdir: epath.Path, step: int) -> bool:
    """Says whether the step's report is there, whole."""
    return (_folder(workdir, step) / REPORT).exists()


def write_report(workdir: epath.Path, step: int, evaluation: Evaluation) -> None:
    """Writes report.json, report.md, report.html and the pictures to <workdir>/eval/<step>/.

    report.json comes last, so that where it lies all else does too.
    """
    folder = _folder(workdir, step)
    folder.mkdir(parents=True, exist_ok=True)
    report = evaluation.report
    draw_adaptation(report, folder / "adaptation.png")
    draw_neighbours(evaluation.neighbours, folder / "neighbours.png")
    curves = draw_curves(workdir, folder / "curves.png")
    p = report["provenance"]
    title = f"{p['method']} on {p['data']}, step {p['step']}"
    introduction = [
        "Does one model become equivariant or invariant to a transformation by what its context"
        " shows? Every figure below names its probe: what a group's R² falls to depends on it.",
        source(report),
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
    by_name = tables(report)
    adaptation = Picture(
        "Adaptation",
        "adaptation.png",
        "R² of each group after contexts of growing length, by environment. Above, a linear probe"
        " trained with Adam; below, weakly regularised ridge regression, which also reads what the"
        f" model has squeezed to a small variance. {source(report)}",
        "R² of each group against context length, one line for each environment",
    )
    neighbours = Picture(
        "Nearest neighbours",
        "neighbours.png",
        "Views nearest to (source, action to target) under each context and for growing context,"
        " among the other views of the same record, and how far they lie from the target. First"
        f" drawn context. {source(report)}",
        "Source, target and nearest views under each context",
    )
    history = Picture(
        "Training", "curves.png", "From metrics.jsonl.", "Losses and held-out R² by step"
    )
    run_on_primary = [by_name.pop(name) for name in ("paper", "adaptivity") if name in by_name]
    last = [by_name.pop("seconds")]
    pictures = [history] if curves else []
    return [adaptation, *run_on_primary, neighbours, *by_name.values(), *pictures, *last]


def _summary(report: dict[str, Any]) -> list[str]:
    """The console's lines: adaptivity at the longest length, in the linear probe's words."""
    p = report["provenance"]
    longest = str(p["lengths"][-1])
    lines = [f"step {p['step']}, {sum(p['seconds'].values()):.0f} s; linear probe, single views:"]
    for environment, groups in report["r2"].items():
        told = (
            f"{group} {' -> '.join(f'{v:5.2f}' for v in by['linear']['single'].values())}"
            for group, by in groups.items()
        )
        if not report_uses_context(p):  # without a context all environments are the same
            lines.append(f"  {'embeddings':18s} {'   '.join(told)}")
            break
        lines.append(f"  {environment + ' context':18s} {'   '.join(told)}")
    told = (f"{g} {by['linear']['single']:5.2f}" for g, by in report["r2_features"].items())
    lines.append(f"  {'features':18s} {'   '.join(told)}")
    if report["adaptivity"]:
        told = (
            f"{g} {by['linear']['single'][longest]:.2f}" for g, by in report["adaptivity"].items()
        )
        lines.append(f"  adaptivity after {longest} tokens: {', '.join(told)}")
    return lines
