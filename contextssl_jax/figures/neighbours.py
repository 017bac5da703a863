"""The views nearest to a predicted target under each context, as in the paper's Figures 1, 6."""

import textwrap
from collections.abc import Sequence

import numpy as np
from etils import epath
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from contextssl_jax.evaluation.neighbours import Neighbours
from contextssl_jax.figures.style import GREY, context_name, save

# All in inches, from the page's upper left corner.
_TALLEST = 13.0
_SIDE, _GAP, _APART, _LINE = 0.84, 0.06, 0.18, 0.12
_LABEL = 0.3  # room for a row's label, which is upright
_HEADING = 0.3
_RECORDS, _NEAREST = 4, 3


def draw_neighbours(neighbours: Neighbours, path: epath.Path) -> None:
    """Draw each record's source and target, and the views nearest under each context.

    Args:
      neighbours: of which the first records that fit one page are drawn, at least one, under the
        environments of a single group, where there are such, and the shortest, the middle and the
        longest context.
      path: of the PNG.
    """
    save(_figure(neighbours), path, dpi=102)


def _figure(neighbours: Neighbours) -> Figure:
    rows = _single(neighbours.environments)
    environments = [neighbours.environments[e] for e in rows]
    count = len(neighbours.lengths)
    columns = sorted({0, count // 2, count - 1})
    lengths = [neighbours.lengths[c] for c in columns]
    shown = neighbours.nearest[:, rows][:, :, columns, :_NEAREST]
    groups, nearest = neighbours.groups, shown.shape[3]
    block = nearest * (_SIDE + _GAP) - _GAP
    first = _APART + 2 * _SIDE + _GAP + _APART + _LABEL  # left end of the first block
    width = first + len(lengths) * (block + _APART)
    row = _SIDE + _LINE * len(groups) + 0.08
    record = len(environments) * row + _APART
    words = textwrap.wrap(_explanation(nearest), int((width - 2 * _APART) * 72 / (8 * 0.55)))
    top = _APART + 0.16 * len(words) + _HEADING
    records = max(1, min(_RECORDS, len(shown), int((_TALLEST - top) / record)))
    height = top + records * record
    figure = Figure(figsize=(width, height))
    page = _page(figure)
    page.text(_APART, _APART / 2, "\n".join(words), fontsize=8, va="top", linespacing=1.3)
    lefts = [first + c * (block + _APART) for c in range(len(lengths))]
    for length, left in zip(lengths, lefts, strict=True):
        heading = f"{length} tokens" if length else "no context"
        page.text(left + block / 2, top - 0.1, heading, fontsize=9.5, weight="bold", ha="center")
        page.plot([left, left + block], [top - 0.05] * 2, color="black", linewidth=0.8)
    for m in range(records):
        y = top + m * record
        if m:
            page.plot([_APART, width - _APART], [y - _APART / 2] * 2, color=GREY, linewidth=0.5)
        middle = y + (len(environments) - 1) * row / 2
        pair = {"source": neighbours.sources[m], "target": neighbours.targets[m]}
        for i, (name, view) in enumerate(pair.items()):
            x = _APART + i * (_SIDE + _GAP)
            _draw_image(page, neighbours.images[view], x, middle)
            page.text(x + _SIDE / 2, middle + _SIDE + _LINE, name, fontsize=8, ha="center")
        for e, environment in enumerate(environments):
            _draw_row(page, neighbours, environment, shown[m, e], y + e * row, lefts)
    return figure


def _page(figure: Figure) -> Axes:
    """Return axes over the whole figure, in inches from its upper left corner."""
    page = figure.add_axes((0, 0, 1, 1))
    page.set(xlim=(0, figure.get_figwidth()), ylim=(figure.get_figheight(), 0), autoscale_on=False)
    page.set_axis_off()
    return page


def _explanation(nearest: int) -> str:
    return (
        "The model is given the source and the part of the action to the target that the row's"
        " environment shows, and predicts the target's embedding. Right: the record's"
        f" {nearest} views nearest to this prediction, nearest first. Numbers: a view's distance"
        " from the target in each group's parameters, in standard deviations (0 = same); bold:"
        " observed groups."
    )


def _single(environments: Sequence[str]) -> list[int]:
    """Return the indices of the environments of a single group, or of all without any."""
    single = [i for i, name in enumerate(environments) if "+" not in name and name != "none"]
    return single or list(range(len(environments)))


def _draw_row(
    page: Axes,
    neighbours: Neighbours,
    environment: str,
    views: np.ndarray,
    y: float,
    lefts: list[float],
) -> None:
    """Draw the nearest views [C, K] of one record in one environment, after each length."""
    x = lefts[0] - _LABEL / 2
    label = context_name(environment)
    page.text(x, y + _SIDE / 2, label, rotation=90, fontsize=8.5, ha="center", va="center")
    for left, nearest in zip(lefts, views, strict=True):
        for k, view in enumerate(nearest):
            x = left + k * (_SIDE + _GAP)
            _draw_image(page, neighbours.images[view], x, y)
            for g, group in enumerate(neighbours.groups):
                page.text(
                    x + _SIDE / 2,
                    y + _SIDE + (g + 1) * _LINE,
                    f"{group} {neighbours.distances[view, g]:.1f}",
                    fontsize=7.5,
                    ha="center",
                    weight="bold" if group in environment.split("+") else "normal",
                )


def _draw_image(page: Axes, image: np.ndarray, x: float, y: float) -> None:
    extent = (x, x + _SIDE, y + _SIDE, y)
    page.imshow(image, extent=extent, aspect="auto", interpolation="bicubic")
