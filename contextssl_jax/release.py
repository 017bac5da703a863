"""Release a trained model: weights, options and a model card in one folder.

    python -m contextssl_jax.release WORKDIR --out=FOLDER

writes model.safetensors, config.json and README.md, the layout of a model repository, which
`contextssl_jax.load` takes. The file model.safetensors is complete by itself. With --dtype=float16
(or bfloat16, which rounds more) the weights take half the space: they are rounded and evaluated
anew, which needs the run's data set, and no figure of the card may change by more than .005.
"""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from contextssl_jax.distributed.parallel import Parallel
from contextssl_jax.errors import Parser, UserError, run_command
from contextssl_jax.evaluation.evaluate import build_evaluation
from contextssl_jax.evaluation.headline import headline_figures
from contextssl_jax.evaluation.parameter_probes import PROBES
from contextssl_jax.evaluation.stored import REPORT, read_report, report_folder
from contextssl_jax.experiment import build_experiment
from contextssl_jax.interface.card import Card
from contextssl_jax.interface.loading import build_model
from contextssl_jax.interface.pages import render_page
from contextssl_jax.reports.summary import statements
from contextssl_jax.run.metadata import read_starts
from contextssl_jax.run.trained_model import (
    read_trained_model,
    read_workdir_config,
    restore_config,
)
from contextssl_jax.storage.files import reraise_write_errors, write_atomic
from contextssl_jax.storage.paths import resolve_path
from contextssl_jax.weights.names import to_float32, unflatten_variables
from contextssl_jax.weights.saved_model import MODEL, SavedModel, write_model

_log = logging.getLogger("contextssl_jax.release")
CARD = "README.md"
_TOLERANCE = 0.005  # by which rounding the weights may change a figure
_DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": jnp.bfloat16}


class Release(NamedTuple):
    """What the command line says of a release."""

    name: str  # of the model; its users load it by this name or path
    dtype: str  # of the weights
    license: str | None
    limits: tuple[str, ...]  # sentences


def main(argv: Sequence[str]) -> int:
    """Run the command line and return the exit status, 2 for a user error."""
    return run_command(_run, argv)


def _run(argv: Sequence[str]) -> None:
    parser = Parser(
        prog="python -m contextssl_jax.release",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workdir", metavar="WORKDIR", help="of a run that has a report")
    parser.add_argument("--out", required=True, help="folder to write to")
    parser.add_argument("--step", type=int, help="checkpoint of WORKDIR; default: the newest")
    parser.add_argument("--name", help="of the model; default: the name of the folder")
    parser.add_argument("--dtype", choices=list(_DTYPES), default="float32")
    parser.add_argument("--license", help="identifier, such as apache-2.0")
    parser.add_argument("--limit", action="append", default=[], help="a sentence on limits")
    options = parser.parse_args(argv[1:])
    out = resolve_path(options.out, "--out")
    described = Release(
        options.name or out.name, options.dtype, options.license, tuple(options.limit)
    )
    release(options.workdir, out, options.step, described)


def release(workdir: str, out: epath.Path, step: int | None, described: Release) -> None:
    """Write the model of a checkpoint with its card.

    Args:
      workdir: of the run.
      out: the folder.
      step: of the checkpoint; None for the newest.
      described: see `Release`.

    Raises:
      UserError: the checkpoint or its report is not readable, rounding changes a figure, or the
        folder is not writable.
    """
    path = resolve_path(workdir, "WORKDIR")
    read_workdir_config(path, "WORKDIR")
    saved = read_trained_model(path, step, "WORKDIR")
    file = report_folder(path, saved.step) / REPORT
    if not file.exists():
        raise UserError(
            f"WORKDIR: {path} has no report of step {saved.step}. Make it by --mode=eval"
            f" --step={saved.step} with the config of the run."
        )
    report = read_report(file)
    rounded = {
        name: np.asarray(tensor, _DTYPES[described.dtype])
        for name, tensor in saved.variables.items()
    }
    saved = saved._replace(variables=rounded)
    if described.dtype != "float32":
        report = _evaluate_again(saved, report)
    saved = saved._replace(figures=headline_figures(report))
    card = build_model(saved, described.name, batch=1).card
    starts = read_starts(path)
    text = _model_card(card, saved, report, starts[0] if starts else {}, described)
    write_model(out, saved, "--out")
    with reraise_write_errors(out, "--out"):
        write_atomic(out / CARD, text)
    size = (out / MODEL).stat().length / 1e6
    _log.info("wrote step %d to %s, %.1f MB", saved.step, out, size)


def _evaluate_again(saved: SavedModel, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the report of rounded weights; raise UserError if a headline figure has changed."""
    config = restore_config(saved.config)
    experiment = build_experiment(config, parallel=Parallel("jit", tuple(jax.local_devices()[:1])))
    variables = unflatten_variables(to_float32(saved.variables))
    report = build_evaluation(config, experiment)(variables, saved.step).report
    names, values = zip(*jax.tree_util.tree_leaves_with_path(headline_figures(report)), strict=True)
    changes = np.abs(np.subtract(values, jax.tree.leaves(headline_figures(before))))
    largest, name = changes.max(), jax.tree_util.keystr(names[changes.argmax()])
    _log.info("rounding the weights changes figures by at most %.4f (%s)", largest, name)
    if not largest <= _TOLERANCE:  # NaN too
        raise UserError(
            f"--dtype: rounding the weights changes {name} by {largest:.4f}, more than"
            f" {_TOLERANCE}. Use a type that rounds less."
        )
    return report


def _command(start: Mapping[str, Any]) -> str:
    """Return the command that started a run, without its workdir."""
    words = (word for word in start.get("command", []) if not word.startswith("--workdir"))
    return " ".join(words) or "unknown"


def _model_card(
    card: Card,
    saved: SavedModel,
    report: Mapping[str, Any],
    start: Mapping[str, Any],
    described: Release,
) -> str:
    return render_page(
        "model_card.md",
        card=card,
        figures=saved.figures,
        probes=PROBES,
        provenance=report["provenance"],
        command=_command(start),
        revision=start.get("git") or "unknown",
        first=next(iter(card.groups)),
        verdicts=[f"{found.subject} {found.verdict}: {found.text}" for found in statements(report)],
        **described._asdict(),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv))
