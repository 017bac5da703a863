"""A sweep's page: tables and figures of all variants with reports, and the state of every run."""

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
from contextssl_jax.reports.glossary import glossary
from contextssl_jax.reports.page import Cell, Picture, Table, html, markdown
from contextssl_jax.reports.paper import PAPER_BY_NAME
from contextssl_jax.storage.paths import error_reason, io_errors
from contextssl_jax.storage.safe_json import truncate
from contextssl_jax.sweeps.curves_figure import draw_sweep
from contextssl_jax.sweeps.definition import Sweep, as_text
from contextssl_jax.sweeps.layout import overview
from contextssl_jax.sweeps.plane_figure import can_draw_plane, draw_plane
from contextssl_jax.sweeps.pooled import Report, Result
from contextssl_jax.sweeps.runs import OF_CONTEXTS, Run, State, read_state
from contextssl_jax.sweeps.selection import R2Selection
from contextssl_jax.sweeps.stored import ALIKE, to_cells, to_tree
from contextssl_jax.sweeps.tables import tables

_NAME = "sweep"
PICTURES = (f"{_NAME}_plane.png", f"{_NAME}.png")  # of a page, in their order
_PLANE = Picture(
    "One group against the other",
    PICTURES[0],
    "R² of both groups. A method without contexts, or with contexts of one environment, has one"
    " marker: R² from the encoder's features, as in the paper. A method with several environments"
    " has a curve for each: R² from embeddings, from no context to the longest. Bars: one standard"
    " deviation over seeds.",
    "R² of one group against R² of the other, a marker for each method or a curve of contexts",
)


def write_page(
    folder: epath.Path,
    sweep: Sweep,
    runs: Sequence[Run],
    settings: Sequence[str] = (),
    command: str = "python -m launch.sweep",
) -> list[Table]:
    """Write sweep.md, .html, .png and .json of all runs with reports to the folder.

    Args:
      folder: of the sweep.
      sweep: the sweep.
      runs: all of its runs, done or not.
      settings: "KEY=VALUE" for all variants, listed on the page.
      command: of the sweep, listed in sweep.json.

    Returns:
      The tables.

    Raises:
      UserError: the folder cannot be written.
    """
    states = [read_state(run) for run in runs]
    results = _results(sweep, runs, states)
    paper = PAPER_BY_NAME[sweep.paper] if sweep.paper else None
    selection = R2Selection(sweep.probes, paper, sweep.official)
    made = tables(results, selection) if results else []
    listed = _runs_table(sweep, runs, states)
    introduction = _introduction(sweep, runs, states, settings)
    if results:
        introduction.insert(1, f"Values are of {_describe_data(results)}.")
    layout = made[0] if made else overview(results, selection)
    pictures = _pictures(sweep, results, selection)
    parts: list[Table | Picture] = [
        *(picture for picture, _ in pictures),
        *made,
        glossary(),
        listed,
    ]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        images: dict[str, bytes] = {}
        for picture, draw in pictures:
            _write_atomically(folder / picture.file, draw)
            images[picture.file] = (folder / picture.file).read_bytes()
        texts = {
            "md": markdown(sweep.title, introduction, parts),
            "html": html(sweep.title, introduction, parts, images),
            "json": json.dumps(
                {"command": command, "settings": list(settings)}
                | to_tree(folder, sweep, runs, states, results)
                | {"layout": to_cells(layout)},
                indent=1,
            )
            + "\n",
        }
        for kind, text in texts.items():
            _write_atomically(folder / f"{_NAME}.{kind}", partial(_write_text, text))
    except io_errors() as error:
        raise UserError(f"--workdir: cannot write {folder} ({error_reason(error)})") from error
    return [*made, listed]


def _pictures(
    sweep: Sweep, results: Sequence[Result], selection: R2Selection
) -> list[tuple[Picture, Callable[[epath.Path], None]]]:
    """Return the page's pictures and the functions that draw them."""
    if not results:
        return []
    note = f"{sweep.title}; {_count_seeds(results)}; {_describe_data(results)}"
    pictures: list[tuple[Picture, Callable[[epath.Path], None]]] = []
    if can_draw_plane(results):
        pictures.append((_PLANE, partial(draw_plane, results, selection, note)))
    by_length_or_value = partial(draw_sweep, results, selection, sweep.axis, note)
    return [*pictures, (_picture(sweep), by_length_or_value)]


def _results(sweep: Sweep, runs: Sequence[Run], states: Sequence[State]) -> list[Result]:
    """Return the variants with reports, in the sweep's order."""
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
    lines = [
        f"{done} of {len(runs)} runs are done: {_count(len(sweep.points), 'variant')},"
        f" {_count(len({run.seed for run in runs}), 'seed')}"
        + (
            f"; options of all variants that do not override them: {', '.join(common)}."
            if common
            else "."
        )
    ]
    left: dict[tuple[str, str], list[str]] = defaultdict(list)  # seeds by variant and reason
    for run, state in zip(runs, states, strict=True):
        if state.kind != "done":
            reason = f"{state.kind}{': ' if state.said else ''}{state.said}"
            left[run.point.label, reason].append(str(run.seed))
    if left:
        listed = [
            f"{label}, {'seeds' if seeds[1:] else 'seed'} {', '.join(seeds)} ({reason})"
            for (label, reason), seeds in left.items()
        ]
        lines.append(f"Not in the tables: {'; '.join(listed)}.")
    lines += _differences([state.report for state in states if state.report is not None])
    return lines


def _differences(reports: Sequence[Report]) -> list[str]:
    """Return a warning if reports differ in the settings of their evaluation."""
    differences = []
    for name in ALIKE:
        some = _with_contexts(reports) if name in OF_CONTEXTS else reports
        values = {json.dumps(r["provenance"].get(name), sort_keys=True) for r in some}
        if len(values) > 1:
            differences.append(f"{name} ({truncate(' or '.join(sorted(values)))})")
    views = {r["provenance"]["views"]["test"]["views"] for r in reports}
    if len(views) > 1:
        differences.append(f"test views ({' or '.join(map(str, sorted(views)))})")
    if not differences:
        return []
    return [f"Warning: the evaluations of these reports differ in {', '.join(differences)}."]


def _runs_table(sweep: Sweep, runs: Sequence[Run], states: Sequence[State]) -> Table:
    seeds = list(dict.fromkeys(run.seed for run in runs))
    by_run = {(run.point.label, run.seed): state for run, state in zip(runs, states, strict=True)}
    rows: list[list[Cell]] = []
    for point in sweep.points:
        options = [f"{name}={as_text(value)}" for name, value in point.overrides.items()]
        own = [by_run[point.label, seed] for seed in seeds]
        states_of_seeds = [f"{s.kind}{', ' if s.said else ''}{s.said}" for s in own]
        rows.append(
            [point.label, point.config, ", ".join(options) or "as in the config", *states_of_seeds]
        )
    return Table(
        "Runs",
        ("variant", "config", "options", *(f"seed {seed}" for seed in seeds)),
        rows,
        "All runs of the sweep and their states; sweep.json has the values of each seed and their"
        " provenance.",
    )


def _picture(sweep: Sweep) -> Picture:
    bands = "Bands" if sweep.axis is None else "Bars"
    if sweep.axis is None:
        title = "R² by context length"
        note = (
            "How well a probe predicts each group. Solid: after contexts that show this group"
            " alone; dashed: after contexts that show another group."
        )
    else:
        title = f"R² by {sweep.axis}"
        note = (
            "How well a probe predicts each group. One line for each context length, one row of"
            " panels for each environment."
        )
    return Picture(
        title,
        f"{_NAME}.png",
        f"{note} {bands}: one standard deviation over seeds, of variants with several.",
        f"{title} of each group",
    )


def _count_seeds(results: Sequence[Result]) -> str:
    counts = sorted({len(result.reports) for result in results})
    least, most = counts[0], counts[-1]
    return _count(most, "seed") if least == most else f"{least} to {most} seeds"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number > 1 else ''}"


def _describe_data(results: Sequence[Result]) -> str:
    """Return the data, step, contexts and views behind a seed's values."""
    reports = [report for result in results for report in result.reports.values()]

    def all_of(
        value_of: Callable[[Mapping[str, Any]], Any], some: Sequence[Report] = reports
    ) -> str:
        return " or ".join(dict.fromkeys(str(value_of(r["provenance"])) for r in some))

    contexts = ""
    if with_contexts := _with_contexts(reports):
        number, split = (
            all_of(itemgetter(name), with_contexts) for name in ("draws", "context_split")
        )
        contexts = (
            f"each seed the mean over {number} {split} context{'' if number == '1' else 's'}, "
        )
    return (
        f"{all_of(itemgetter('data'))}, step {all_of(itemgetter('step'))}; {contexts}"
        f"{all_of(lambda p: format(p['views']['test']['views'], ','))}"
        f" {all_of(lambda p: p['views']['test']['split'])} views"
    )


def _with_contexts(reports: Sequence[Report]) -> list[Report]:
    """Return the reports of methods with contexts."""
    return [report for report in reports if report_uses_context(report["provenance"])]


def _write_text(text: str, file: epath.Path) -> None:
    file.write_text(text)


def _write_atomically(file: epath.Path, write: Callable[[epath.Path], Any]) -> None:
    """Write a file atomically, since several machines may write the page."""
    new = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    write(new)
    new.replace(file)
