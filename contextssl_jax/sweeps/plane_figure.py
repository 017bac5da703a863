"""Two groups against each other: a method that adapts to contexts moves, another is a point."""

from collections.abc import Sequence

import numpy as np
from etils import epath
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from contextssl_jax.figures.style import (
    GREY,
    PROBES,
    Style,
    color_of,
    context_name,
    finish,
    footer,
    marker,
    save,
)
from contextssl_jax.sweeps.measure import Measure, groups_of
from contextssl_jax.sweeps.pooled import Result


def can_draw_plane(results: Sequence[Result]) -> bool:
    """Says whether there are two groups, and methods of both kinds: some adapt to contexts."""
    return len(groups_of(results)) == 2 and len({result.adapts for result in results}) == 2


def draw_plane(results: Sequence[Result], measure: Measure, note: str, path: epath.Path) -> None:
    """Draws R² of one group against R² of the other.

    Of methods that read contexts of several environments, embeddings, from no context to the
    longest of each; of others, the encoder's features, as the paper reports them. Bars are one
    standard deviation over seeds.

    Args:
      results: points for which `plane_tells`.
      measure: whose R² is shown.
      note: what the figures are of.
      path: of the PNG.
    """
    figure = _figure(results, measure)
    footer(figure, [note])
    save(figure, path, dpi=160)


def _figure(results: Sequence[Result], measure: Measure) -> Figure:
    groups = groups_of(results)
    figure = Figure(figsize=(6.8, max(4.6, 1.2 + 0.22 * len(results))), layout="constrained")
    axis = figure.subplots()
    for i, result in enumerate(results):
        if result.adapts:
            for name in result.environments:
                _way(axis, i, result, measure, name, groups)
        else:
            _point(axis, i, result, measure, groups)
    names = [f"{group}: R² of a {PROBES[measure.probe(group)]}" for group in groups]
    axis.set_xlabel(names[0], fontsize=9)
    axis.set_ylabel(names[1], fontsize=9)
    low = min(0.0, axis.dataLim.x0, axis.dataLim.y0)
    axis.set_xlim(low - 0.03, 1.03)
    axis.set_ylim(low - 0.03, 1.03)
    axis.set_aspect("equal")
    finish(axis, "an encoder: a point; with growing contexts: a way")
    handles = []
    for i, result in enumerate(results):
        look: Style = {"color": color_of(i), "linestyle": "-" if result.adapts else ""}
        handles.append(Line2D([], [], label=result.label, **look, **marker(i)))
    figure.legend(handles=handles, loc="outside right center", fontsize=8, frameon=False)
    return figure


def _point(axis: Axes, i: int, result: Result, measure: Measure, groups: Sequence[str]) -> None:
    found = [result.at(*measure.features(group)) for group in groups]
    if all(one.by_seed for one in found):
        x, y = found
        look: Style = {"color": color_of(i), **marker(i)}
        look["markersize"] *= 1.4
        bars: Style = {"elinewidth": 1.0, "linestyle": "", "label": result.label}
        axis.errorbar([x.mean], [y.mean], [[y.std or 0.0]], [[x.std or 0.0]], **bars, **look)


def _way(
    axis: Axes, i: int, result: Result, measure: Measure, name: str, groups: Sequence[str]
) -> None:
    lengths = sorted(result.lengths())
    found = [
        [result.at(*measure.path(name, group), str(length)) for group in groups]
        for length in lengths
    ]
    if not all(one.by_seed for pair in found for one in pair):
        return
    way = np.array([[one.mean for one in pair] for pair in found])
    spread = np.array([[one.std or 0.0 for one in pair] for pair in found])
    look: Style = {"color": color_of(i), **marker(i)}
    x, y = way.T
    axis.plot(x, y, linewidth=1.4, label=f"{result.label}, {name}", **look)
    bars: Style = {"fmt": "none", "elinewidth": 0.8, "alpha": 0.6}
    axis.errorbar(x, y, spread[:, 1], spread[:, 0], color=color_of(i), **bars)
    across, up = np.abs(way[-1] - way[0])  # the label is beside the way, not on it
    place: Style = dict(xytext=(7, 0), ha="left", va="center")
    if across > up:
        place = dict(xytext=(-4, 6), ha="left", va="bottom")
    said: Style = dict(textcoords="offset points", fontsize=7, color=GREY)
    axis.annotate(context_name(name), (x[-1], y[-1]), **said, **place)
    if name == result.environments[0] and not lengths[0]:
        start: Style = dict(xytext=(6, 4), ha="left", va="bottom")
        axis.annotate("no context", (x[0], y[0]), **said, **start)
