"""A sweep's page: tables and figures of all variants with reports, and the state of every run."""

import json
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from etils import epath

from contextssl_jax.errors import UserError
from contextssl_jax.reports.glossary import glossary
from contextssl_jax.reports.page import Cell, Picture, Table, html, markdown
from contextssl_jax.reports.paper import PAPER_BY_NAME
from contextssl_jax.storage.paths import error_reason, io_errors
from contextssl_jax.sweeps.curves_figure import draw_sweep
from contextssl_jax.sweeps.definition import Sweep, as_text
from contextssl_jax.sweeps.introduction import count_seeds, describe_data, introduction
from contextssl_jax.sweeps.layout import overview
from contextssl_jax.sweeps.plane_figure import can_draw_plane, draw_plane
from contextssl_jax.sweeps.pooled import Result
from contextssl_jax.sweeps.runs import Run, State, read_state
from contextssl_jax.sweeps.selection import R2Selection
from contextssl_jax.sweeps.stored import to_cells, to_tree
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
    paragraphs = introduction(sweep, runs, states, settings)
    if results:
        paragraphs.insert(1, f"Values are of {describe_data(results)}.")
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
            "md": markdown(sweep.title, paragraphs, parts),
            "html": html(sweep.title, paragraphs, parts, images),
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
    note = f"{sweep.title}; {count_seeds(results)}; {describe_data(results)}"
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


def _write_text(text: str, file: epath.Path) -> None:
    file.write_text(text)


def _write_atomically(file: epath.Path, write: Callable[[epath.Path], Any]) -> None:
    """Write a file atomically, since several machines may write the page."""
    new = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    write(new)
    new.replace(file)
