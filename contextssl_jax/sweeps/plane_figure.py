"""R² of one group against the other: a curve for methods that adapt, a marker for others."""

from collections.abc import Sequence

import numpy as np
from etils import epath
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from contextssl_jax.evaluation.parameter_probes import PROBES
from contextssl_jax.figures.style import (
    GREY,
    Style,
    color_of,
    context_name,
    finish,
    footer,
    marker,
    save,
)
from contextssl_jax.sweeps.pooled import Result
from contextssl_jax.sweeps.selection import R2Selection, groups_of


def can_draw_plane(results: Sequence[Result]) -> bool:
    """Return whether there are two groups, and both methods that adapt and others."""
    return len(groups_of(results)) == 2 and len({result.adapts for result in results}) == 2


def draw_plane(
    results: Sequence[Result], selection: R2Selection, note: str, path: epath.Path
) -> None:
    """Draw R² of one group against R² of the other.

    A method with contexts of several environments has curves of embeddings, from no context to the
    longest of each environment; others have a marker of the encoder's features, as in the paper.
    Bars are one standard deviation over seeds.

    Args:
      results: variants for which `can_draw_plane`.
      selection: the displayed R².
      note: what the values are of.
      path: of the PNG.
    """
    figure = _figure(results, selection)
    footer(figure, [note])
    save(figure, path, dpi=160)


def _figure(results: Sequence[Result], selection: R2Selection) -> Figure:
    groups = groups_of(results)
    figure = Figure(figsize=(6.8, max(4.6, 1.2 + 0.22 * len(results))), layout="constrained")
    axis = figure.subplots()
    for i, result in enumerate(results):
        if result.adapts:
            for name in result.environments:
                _draw_curve(axis, i, result, selection, name, groups)
        else:
            _draw_marker(axis, i, result, selection, groups)
    names = [f"{group}: R² of a {PROBES[selection.probe(group)]} probe" for group in groups]
    axis.set_xlabel(names[0], fontsize=9)
    axis.set_ylabel(names[1], fontsize=9)
    low = min(0.0, axis.dataLim.x0, axis.dataLim.y0)
    axis.set_xlim(low - 0.03, 1.03)
    axis.set_ylim(low - 0.03, 1.03)
    axis.set_aspect("equal")
    finish(axis, "marker: encoder; curve: growing contexts")
    handles = []
    for i, result in enumerate(results):
        style: Style = {"color": color_of(i), "linestyle": "-" if result.adapts else ""}
        handles.append(Line2D([], [], label=result.label, **style, **marker(i)))
    figure.legend(handles=handles, loc="outside right center", fontsize=8, frameon=False)
    return figure


def _draw_marker(
    axis: Axes, i: int, result: Result, selection: R2Selection, groups: Sequence[str]
) -> None:
    found = [result.at(*selection.features_path(group)) for group in groups]
    if all(one.by_seed for one in found):
        x, y = found
        style: Style = {"color": color_of(i), **marker(i)}
        style["markersize"] *= 1.4
        bars: Style = {"elinewidth": 1.0, "linestyle": "", "label": result.label}
        axis.errorbar([x.mean], [y.mean], [[y.std or 0.0]], [[x.std or 0.0]], **bars, **style)


def _draw_curve(
    axis: Axes, i: int, result: Result, selection: R2Selection, name: str, groups: Sequence[str]
) -> None:
    lengths = sorted(result.lengths())
    found = [
        [result.at(*selection.path(name, group), str(length)) for group in groups]
        for length in lengths
    ]
    if not all(one.by_seed for pair in found for one in pair):
        return
    curve = np.array([[one.mean for one in pair] for pair in found])
    spread = np.array([[one.std or 0.0 for one in pair] for pair in found])
    style: Style = {"color": color_of(i), **marker(i)}
    x, y = curve.T
    axis.plot(x, y, linewidth=1.4, label=f"{result.label}, {name}", **style)
    bars: Style = {"fmt": "none", "elinewidth": 0.8, "alpha": 0.6}
    axis.errorbar(x, y, spread[:, 1], spread[:, 0], color=color_of(i), **bars)
    across, up = np.abs(curve[-1] - curve[0])  # the label is beside the curve, not on it
    place: Style = dict(xytext=(7, 0), ha="left", va="center")
    if across > up:
        place = dict(xytext=(-4, 6), ha="left", va="bottom")
    text: Style = dict(textcoords="offset points", fontsize=7, color=GREY)
    axis.annotate(context_name(name), (x[-1], y[-1]), **text, **place)
    if name == result.environments[0] and not lengths[0]:
        start: Style = dict(xytext=(6, 4), ha="left", va="bottom")
        axis.annotate("no context", (x[0], y[0]), **text, **start)
