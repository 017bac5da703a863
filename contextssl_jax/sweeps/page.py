"""A sweep's page: every point that is done as tables and one figure, and what is not done yet."""

import json
import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from etils import epath

from contextssl_jax.errors import UserError
from contextssl_jax.evaluation.stored import report_uses_context
from contextssl_jax.reports.page import Cell, Picture, Table, html, markdown
from contextssl_jax.reports.paper import PAPER_BY_NAME
from contextssl_jax.storage.paths import error_reason, io_errors
from contextssl_jax.storage.safe_json import truncate
from contextssl_jax.sweeps.curves_figure import draw_sweep
from contextssl_jax.sweeps.definition import Sweep, as_text
from contextssl_jax.sweeps.layout import overview
from contextssl_jax.sweeps.measure import Measure
from contextssl_jax.sweeps.plane_figure import can_draw_plane, draw_plane
from contextssl_jax.sweeps.pooled import Report, Result
from contextssl_jax.sweeps.runs import OF_CONTEXTS, Run, State, read_state
from contextssl_jax.sweeps.stored import ALIKE, to_cells, to_tree
from contextssl_jax.sweeps.tables import tables

_NAME = "sweep"
PICTURES = (f"{_NAME}_plane.png", f"{_NAME}.png")  # of a page, the first of them first
_PLANE = Picture(
    "One group against the other",
    PICTURES[0],
    "A method that reads no contexts, or those of one environment alone, is a point: R² of both"
    " groups from its encoder's features, as the paper reports it. Others move, from no context to"
    " the longest of each environment: R² from embeddings. Bars: one standard deviation over"
    " seeds.",
    "R² of one group against R² of the other, a point for each method or a line of contexts",
)


def write_page(
    folder: epath.Path,
    sweep: Sweep,
    runs: Sequence[Run],
    settings: Sequence[str] = (),
    command: str = "python -m launch.sweep",
) -> list[Table]:
    """Writes sweep.md, .html, .png and .json to the folder, over all runs that are done.

    Args:
      folder: of the sweep.
      sweep: whose page it is.
      runs: all of it, done or not.
      settings: "KEY=VALUE" for all points, which the page tells.
      command: that makes it, which the page tells.

    Returns:
      The tables.

    Raises:
      UserError: the folder cannot be written.
    """
    states = [read_state(run) for run in runs]
    results = _results(sweep, runs, states)
    paper = PAPER_BY_NAME[sweep.paper] if sweep.paper else None
    measure = Measure(sweep.probes, paper, sweep.official)
    made = tables(results, measure) if results else []
    listed = _runs_table(sweep, runs, states)
    said = _introduction(sweep, runs, states, settings)
    if results:
        said.insert(1, f"Where figures are from: {_measured(results)}.")
    layout = made[0] if made else overview(results, measure)
    drawn = _drawn(sweep, results, measure)
    parts: list[Table | Picture] = [*(picture for picture, _ in drawn), *made, listed]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        images: dict[str, bytes] = {}
        for picture, draw in drawn:
            _put(folder / picture.file, draw)
            images[picture.file] = (folder / picture.file).read_bytes()
        texts = {
            "md": markdown(sweep.title, said, parts),
            "html": html(sweep.title, said, parts, images),
            "json": json.dumps(
                {"command": command, "settings": list(settings)}
                | to_tree(folder, sweep, runs, states, results)
                | {"layout": to_cells(layout)},
                indent=1,
            )
            + "\n",
        }
        for kind, text in texts.items():
            _put(folder / f"{_NAME}.{kind}", lambda path, text=text: path.write_text(text))  # type: ignore[misc]
    except io_errors() as error:
        raise UserError(f"--workdir: cannot write {folder} ({error_reason(error)})") from error
    return [*made, listed]


def _drawn(
    sweep: Sweep, results: Sequence[Result], measure: Measure
) -> list[tuple[Picture, Callable[[epath.Path], None]]]:
    """Returns the page's pictures, with what draws each."""
    if not results:
        return []
    note = f"{sweep.title}; {_seeds_said(results)}; {_measured(results)}"
    pictures: list[tuple[Picture, Callable[[epath.Path], None]]] = []
    if can_draw_plane(results):
        pictures.append((_PLANE, partial(draw_plane, results, measure, note)))
    by_length_or_value = partial(draw_sweep, results, measure, sweep.axis, note)
    return [*pictures, (_picture(sweep), by_length_or_value)]


def _results(sweep: Sweep, runs: Sequence[Run], states: Sequence[State]) -> list[Result]:
    """Gathers the reports of each point that has any, in the sweep's order."""
    found = []
    for point in sweep.points:
        own = [(run, state) for run, state in zip(runs, states, strict=True) if run.point is point]
        reports = {run.seed: state.report for run, state in own if state.report is not None}
        if reports:
            environments = tuple(own[0][0].config.environments)
            found.append(Result(point.label, point.value, environments, reports))
    return found


def _introduction(
    sweep: Sweep, runs: Sequence[Run], states: Sequence[State], settings: Sequence[str]
) -> list[str]:
    done = sum(state.kind == "done" for state in states)
    common = [f"{name}={as_text(value)}" for name, value in sweep.overrides.items()]
    common += settings
    said = [
        f"{done} of {len(runs)} runs are done: {_counted(len(sweep.points), 'point')},"
        f" {_counted(len({run.seed for run in runs}), 'seed')}"
        + (f"; for all of them, unless they say otherwise: {', '.join(common)}." if common else ".")
    ]
    left: dict[tuple[str, str], list[str]] = defaultdict(list)  # seeds by point and why
    for run, state in zip(runs, states, strict=True):
        if state.kind != "done":
            why = f"{state.kind}{': ' if state.said else ''}{state.said}"
            left[run.point.label, why].append(str(run.seed))
    if left:
        listed = [
            f"{label}, {'seeds' if seeds[1:] else 'seed'} {', '.join(seeds)} ({why})"
            for (label, why), seeds in left.items()
        ]
        said.append(f"Not in the figures: {'; '.join(listed)}.")
    said += _unlike([state.report for state in states if state.report is not None])
    return said


def _unlike(reports: Sequence[Report]) -> list[str]:
    """Tells what reports that stand side by side do not have in common in how they were made."""
    different = []
    for name in ALIKE:
        some = _reading(reports) if name in OF_CONTEXTS else reports
        values = {json.dumps(r["provenance"].get(name), sort_keys=True) for r in some}
        if len(values) > 1:
            different.append(f"{name} ({truncate(' or '.join(sorted(values)))})")
    views = {r["provenance"]["views"]["test"]["views"] for r in reports}
    if len(views) > 1:
        different.append(f"test views ({' or '.join(map(str, sorted(views)))})")
    if not different:
        return []
    return [f"Beware: not all reports were measured alike: they differ in {', '.join(different)}."]


def _runs_table(sweep: Sweep, runs: Sequence[Run], states: Sequence[State]) -> Table:
    seeds = list(dict.fromkeys(run.seed for run in runs))
    by_run = {(run.point.label, run.seed): state for run, state in zip(runs, states, strict=True)}
    rows: list[list[Cell]] = []
    for point in sweep.points:
        options = [f"{name}={as_text(value)}" for name, value in point.overrides.items()]
        own = [by_run[point.label, seed] for seed in seeds]
        told = [f"{s.kind}{', ' if s.said else ''}{s.said}" for s in own]
        rows.append([point.label, point.config, ", ".join(options) or "as it is", *told])
    return Table(
        "Runs",
        ("point", "config", "options", *(f"seed {seed}" for seed in seeds)),
        rows,
        "All that the sweep asks for, and how far it has come; sweep.json has each figure of each"
        " seed, and where it is from.",
    )


def _picture(sweep: Sweep) -> Picture:
    bands = "Bands" if sweep.axis is None else "Bars"
    if sweep.axis is None:
        what = "R² by context length"
        told = "Solid: a group's R² under its own context; dashed: under the others'."
    else:
        what = f"R² by {sweep.axis}"
        told = "One line for each length of the context, one row of panels for each context."
    return Picture(
        what,
        f"{_NAME}.png",
        f"{told} {bands}: one standard deviation over seeds, of points that have several.",
        f"{what} of each group",
    )


def _seeds_said(results: Sequence[Result]) -> str:
    counts = sorted({len(result.reports) for result in results})
    least, most = counts[0], counts[-1]
    return _counted(most, "seed") if least == most else f"{least} to {most} seeds"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number > 1 else ''}"


def _measured(results: Sequence[Result]) -> str:
    """Says what a seed's figures are of."""
    reports = [report for result in results for report in result.reports.values()]

    def all_of(tell: Callable[[Mapping[str, Any]], Any], some: Sequence[Report] = reports) -> str:
        return " or ".join(dict.fromkeys(str(tell(r["provenance"])) for r in some))

    contexts = ""
    if reading := _reading(reports):
        number, split = (all_of(itemgetter(name), reading) for name in ("draws", "context_split"))
        contexts = (
            f"each seed the mean over {number} {split} context{'' if number == '1' else 's'}, "
        )
    return (
        f"{all_of(itemgetter('data'))}, step {all_of(itemgetter('step'))}; {contexts}"
        f"{all_of(lambda p: format(p['views']['test']['views'], ','))}"
        f" {all_of(lambda p: p['views']['test']['split'])} views"
    )


def _reading(reports: Sequence[Report]) -> list[Report]:
    """Returns the reports of methods that read contexts."""
    return [report for report in reports if report_uses_context(report["provenance"])]


def _put(file: epath.Path, write: Callable[[epath.Path], Any]) -> None:
    """Writes a file at once, since several machines may write the page."""
    new = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    write(new)
    new.replace(file)
