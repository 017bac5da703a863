"""Reports of several runs side by side: python -m contextssl_jax.compare RUN RUN ...

A run is a working directory (of which the newest report is compared), a folder eval/<step> of one,
or a report.json. The tables are printed, and written with a figure to --out as comparison.md,
.html and .png.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from contextssl_jax.errors import Parser, UserError
from contextssl_jax.evaluation.parameter_probes import PROBES, TARGETS
from contextssl_jax.evaluation.stored import REPORT, read_report
from contextssl_jax.figures.comparison import draw_comparison
from contextssl_jax.reports.comparison_tables import Reports, comparison_tables, describe_choice
from contextssl_jax.reports.glossary import glossary
from contextssl_jax.reports.page import Picture, Table, aligned, html, markdown
from contextssl_jax.storage.paths import error_reason, io_errors, list_numbered, resolve_path


def main(argv: Sequence[str]) -> int:
    """Run the command line and return the exit status, 2 for a user error."""
    parser = Parser(prog="python -m contextssl_jax.compare", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--out", default="comparison", help="folder to write to")
    parser.add_argument("--probe", default="linear", choices=list(PROBES))
    parser.add_argument("--target", default="single", choices=list(TARGETS))
    try:
        options = parser.parse_args(argv[1:])
        reports = read_reports(options.runs)
        compare(reports, resolve_path(options.out, "--out"), options.probe, options.target)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def compare(reports: Reports, folder: epath.Path, probe: str, target: str) -> None:
    """Print the tables of several reports, and write them with a figure to the folder.

    Args:
      reports: by the run's name.
      folder: created if it does not exist.
      probe: the probe whose R² is compared.
      target: what the probe predicts.

    Raises:
      UserError: the folder cannot be written.
    """
    made = comparison_tables(reports, probe, target)
    title = f"Comparison of {len(reports)} runs"
    introduction = [f"{name}: {_source(report)}" for name, report in reports.items()]
    picture = Picture(
        "R² by context length",
        "comparison.png",
        "How well a probe predicts each group's parameters by tokens of context. Solid: after"
        " contexts that show this group alone; dashed: after contexts that show another group."
        f" {describe_choice(probe, target).capitalize()}.",
        "R² of each group against context length, one color for each run",
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draw_comparison(reports, folder / picture.file, probe, target)
        parts: list[Table | Picture] = [picture, *made, glossary()]
        (folder / "comparison.md").write_text(markdown(title, introduction, parts))
        images = {picture.file: (folder / picture.file).read_bytes()}
        (folder / "comparison.html").write_text(html(title, introduction, parts, images))
    except io_errors() as error:
        raise UserError(f"--out: cannot write {folder} ({error_reason(error)})") from error
    for table in made:  # last, since a pager may close the output
        print(f"{table.title}\n\n{aligned(table)}\n")
    print(f"see {folder / 'comparison.html'}")


def read_reports(runs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the runs' reports by distinct names.

    Raises:
      UserError: a run has no report, or it is damaged, or named twice.
    """
    files = [_find(resolve_path(run, "RUN")) for run in runs]
    if len(set(files)) < len(files):
        raise UserError("RUN: a report is named twice. Name each once")
    return {name: read_report(file) for name, file in zip(_names(files), files, strict=True)}


def _find(path: epath.Path) -> epath.Path:
    """Return the report.json of a run on the command line."""
    if path.name == REPORT and path.exists():
        return path
    if (path / REPORT).exists():
        return path / REPORT
    done = [step for step in list_numbered(path / "eval") if (step / REPORT).exists()]
    if not done:
        raise UserError(f"{path}: has no report. Make one with --mode=eval --workdir={path}")
    return max(done, key=lambda step: int(step.name)) / REPORT


def _names(files: Sequence[epath.Path]) -> list[str]:
    """Return the shortest distinct ends of the files' paths."""
    parts = [file.parent.parts for file in files]
    parts = [p[:-2] if len(p) > 2 and p[-2] == "eval" else p for p in parts]
    if len(set(parts)) < len(parts):  # several steps of one run
        parts = [file.parent.parts for file in files]
    depth = 1
    while len({p[-depth:] for p in parts}) < len(parts):
        depth += 1
    return ["/".join(p[-depth:]) for p in parts]


def _source(report: Mapping[str, Any]) -> str:
    p = report["provenance"]
    return (
        f"{p['method']} on {p['data']}, config {p['config']}, seed {p['seed']}, step {p['step']};"
        f" {p['draws']} context(s) of the {p['context_split']} split,"
        f" {p['views']['test']['views']:,} views of the {p['views']['test']['split']} split."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv))
