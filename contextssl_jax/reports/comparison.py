"""Reports of several runs side by side: python -m contextssl_jax.compare RUN RUN ...

A run is a working directory (its newest report is taken), a folder eval/<step> of one, or a
report.json. The tables are printed, and written with a figure to --out as comparison.md, .html
and .png.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from contextssl_jax.errors import Parser, UserError
from contextssl_jax.evaluation.measures import PROBES, TARGETS
from contextssl_jax.evaluation.stored import read_report
from contextssl_jax.figures.comparison import draw_comparison
from contextssl_jax.reports.command import REPORT
from contextssl_jax.reports.page import Cell, Picture, Table, aligned, html, markdown
from contextssl_jax.storage.paths import error_reason, io_errors, list_numbered, resolve_path

Reports = Mapping[str, Mapping[str, Any]]  # by the run's name


def main(argv: Sequence[str]) -> int:
    """Does what the command line says; returns the exit status, 2 for a mistake in it."""
    parser = Parser(prog="python -m contextssl_jax.compare", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--out", default="comparison", help="folder to write to")
    parser.add_argument("--probe", default="linear", choices=PROBES)
    parser.add_argument("--target", default="single", choices=TARGETS)
    try:
        options = parser.parse_args(argv[1:])
        reports = read_reports(options.runs)
        compare(reports, resolve_path(options.out, "--out"), options.probe, options.target)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def compare(reports: Reports, folder: epath.Path, probe: str, target: str) -> None:
    """Prints the tables of several reports, and writes them with a figure to the folder.

    Args:
      reports: by the run's name.
      folder: made where needed.
      probe: whose R² is compared.
      target: of the probe.

    Raises:
      UserError: the folder cannot be written.
    """
    made = tables(reports, probe, target)
    title = f"Comparison of {len(reports)} runs"
    said = [f"{name}: {_source(report)}" for name, report in reports.items()]
    picture = Picture(
        "R² by context length",
        "comparison.png",
        f"Solid: a group's R² under its own context. Dashed: under the others'. Probe {probe},"
        f" told from {target}.",
        "R² of each group against context length, one color for each run",
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draw_comparison(reports, folder / picture.file, probe, target)
        parts: list[Table | Picture] = [picture, *made]
        (folder / "comparison.md").write_text(markdown(title, said, parts))
        images = {picture.file: (folder / picture.file).read_bytes()}
        (folder / "comparison.html").write_text(html(title, said, parts, images))
    except io_errors() as error:
        raise UserError(f"--out: cannot write {folder} ({error_reason(error)})") from error
    for table in made:  # last, since a pager or head may close the output
        print(f"{table.title}\n\n{aligned(table)}\n")
    print(f"see {folder / 'comparison.html'}")


def read_reports(runs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Reads the runs' reports, by names that tell them apart.

    Raises:
      UserError: a run has no report, or it is damaged.
    """
    files = [_find(resolve_path(run, "RUN")) for run in runs]
    if len(set(files)) < len(files):
        raise UserError("the same report is named twice")
    return {name: read_report(file) for name, file in zip(_names(files), files, strict=True)}


def tables(reports: Reports, probe: str, target: str) -> list[Table]:
    """Returns what runs have in common: the longest context, adaptivity, R² and retrieval."""
    lengths = sorted({c for report in reports.values() for c in report["provenance"]["lengths"]})
    columns = tuple(map(str, lengths))

    def rows(name: str, *path: str) -> list[list[Cell]]:
        """One row for each run and key of report[name]; path leads on from there to lengths."""
        keys = dict.fromkeys(key for report in reports.values() for key in report[name])
        made: list[list[Cell]] = []
        for key in keys:
            for run, report in reports.items():
                if key in report[name]:
                    made.append([key, run, *_by_length(report, (name, key, *path), columns)])
        return made

    groups = dict.fromkeys(g for report in reports.values() for g in report["r2_features"])
    return [
        _overview(reports, tuple(groups), probe, target),
        Table(
            f"Adaptivity, probe {probe}, told from {target}",
            ("group", "run", *columns),
            rows("adaptivity", probe, target),
            "R² under the group's own context minus R² under the others', by tokens of context.",
        ),
        *(
            Table(
                f"R² of {group}, probe {probe}, told from {target}",
                ("context", "run", *columns),
                rows("r2", group, probe, target),
                "By tokens of context.",
            )
            for group in groups
        ),
        Table(
            "Retrieval, MRR",
            ("context", "run", *columns),
            rows("retrieval", "mrr"),
            "By tokens of context.",
        ),
    ]


def _overview(reports: Reports, groups: tuple[str, ...], probe: str, target: str) -> Table:
    rows: list[list[Cell]] = []
    for run, report in reports.items():
        longest = str(report["provenance"]["lengths"][-1])
        row: list[Cell] = [run, report["provenance"]["step"], int(longest)]
        for group in groups:
            own = ("r2", group, group, probe, target)
            row += [
                *_by_length(report, own, (longest,)),
                *_by_length(report, ("adaptivity", group, probe, target), (longest,)),
            ]
        for classifier in ("linear", "knn"):
            row += _by_length(report, ("accuracy_features", classifier), ("1.0",))
        rows.append(row)
    return Table(
        f"After the longest context, probe {probe}, told from {target}",
        (
            *("run", "step", "tokens"),
            *(name for group in groups for name in (f"{group}, own R²", f"{group}, adaptivity")),
            *("linear accuracy", "kNN accuracy"),
        ),
        rows,
        "Own R²: under the group's own context. Adaptivity: how far that lies above R² under the"
        " others'. Accuracy: of the encoder's features.",
    )


def _by_length(report: Mapping[str, Any], path: tuple[str, ...], keys: Sequence[str]) -> list[Cell]:
    """Reads report[path...][key] for each key, with deviations; None where there is nothing."""

    def at(name: str) -> Mapping[str, float]:
        tree: Any = report.get(name, {})
        for key in path[1:]:
            tree = tree.get(key, {})
        found: Mapping[str, float] = tree
        return found

    values, spread = at(path[0]), at(f"{path[0]}_std")
    return [
        f"{values[key]:.3f} ± {spread[key]:.3f}" if key in spread else values.get(key)
        for key in keys
    ]


def _find(path: epath.Path) -> epath.Path:
    """Returns the report.json that a command line's run stands for."""
    if path.name == REPORT and path.exists():
        return path
    if (path / REPORT).exists():
        return path / REPORT
    done = [step for step in list_numbered(path / "eval") if (step / REPORT).exists()]
    if not done:
        raise UserError(f"{path}: has no report; make one with --mode=eval --workdir={path}")
    return max(done, key=lambda step: int(step.name)) / REPORT


def _names(files: Sequence[epath.Path]) -> list[str]:
    """Returns the shortest ends of the files' paths that tell them apart."""
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
