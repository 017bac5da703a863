"""Common style of all figures: colors, dashes, markers, axes, legends and footers."""

import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from PIL import Image

from contextssl_jax.evaluation.stored import report_uses_context

Style = dict[str, Any]  # options of `Axes.plot`

# Okabe and Ito's colors, distinct with color blindness and in print; dashes differ as well.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (7, 2)), (0, (3, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
GREY = "#777777"
LONGER: Style = {"color": GREY, "alpha": 0.12, "linewidth": 0}  # than in training


def color_of(i: int) -> str:
    """Return the color of the i-th line."""
    return COLORS[i % len(COLORS)]


def stroke(i: int) -> Style:
    """Return the color and dashes of the i-th line, for `Axes.plot`."""
    return {"color": color_of(i), "linestyle": DASHES[i % len(DASHES)]}


def marker(i: int) -> Style:
    """Return the marker of the i-th line, for `Axes.plot`; hollow where its color repeats."""
    shape = MARKERS[i % len(MARKERS)]
    size = 9 if shape == "*" else 5  # a star is mostly air
    if i // len(COLORS) % 2:
        edge = {"markeredgecolor": color_of(i), "markeredgewidth": 1.2}
        fill = {"markerfacecolor": "white", **edge}
    else:
        fill = {"markeredgecolor": "white", "markeredgewidth": 0.6}
    return {"marker": shape, "markersize": size, **fill}


def context_name(environment: str) -> str:
    """Return the label of an environment."""
    single = "+" not in environment and environment != "none"
    return f"{environment} context" if single else environment


def finish(axis: Axes, title: str) -> None:
    """Set title, tick size and grid."""
    axis.set_title(title, fontsize=10)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)


def length_axis(axis: Axes, lengths: Iterable[int]) -> None:
    """Set x to the context's length: logarithmic, 0 at the left, a tick at each length."""
    axis.set_xlabel("tokens of context", fontsize=9)
    ticks = sorted(set(lengths))
    shortest = min((length for length in ticks if length), default=1)
    # Linear from 0 to the shortest, about as wide as half a decade.
    axis.set_xscale("symlog", linthresh=shortest, linscale=0.45)
    places = axis.xaxis.get_transform().transform(np.array(ticks, float))
    axis.set_xticks(ticks, spaced(places, list(map(str, ticks))))
    axis.xaxis.set_minor_locator(NullLocator())


def spaced(places: np.ndarray, labels: Sequence[str], gap: float = 0.125) -> list[str]:
    """Replace labels that would touch the next by empty ones; the last always stays.

    Args:
      places: positions of the labels, rising.
      labels: one for each position.
      gap: the least distance of two, as a fraction of the axis.
    """
    kept: list[str] = []
    free = math.inf
    for place, label in zip(places[::-1], labels[::-1], strict=True):
        kept.append(label if place <= free else "")
        free = place - gap * (places[-1] - places[0]) if kept[-1] else free
    return kept[::-1]


def curve(values: Mapping[str, float]) -> tuple[list[int], list[float]]:
    """Return a report's {length: value} as rising lengths and their values."""
    lengths = sorted(map(int, values))
    return lengths, [values[str(length)] for length in lengths]


def band(axis: Axes, values: Mapping[str, float], spread: Mapping[str, float], color: str) -> None:
    """Draw a light band of one standard deviation about the values."""
    lengths, middle = curve(values)
    _, std = curve(spread)
    low, high = np.subtract(middle, std), np.add(middle, std)
    axis.fill_between(lengths, low, high, color=color, alpha=0.15, linewidth=0)


def legend_above(figure: Figure, handles: Sequence[Artist]) -> None:
    """Add one legend above all panels, in the fewest even rows that fit the figure's width."""
    for rows in range(1, len(handles) + 1):
        legend = figure.legend(
            handles=handles,
            loc="outside upper center",
            ncols=math.ceil(len(handles) / rows),
            fontsize=8.5,
            handlelength=3.0,
            columnspacing=1.4,
            frameon=False,
        )
        if legend.get_window_extent().width <= figure.bbox.width or rows == len(handles):
            break
        legend.remove()


def footer(figure: Figure, lines: Iterable[str]) -> None:
    """Write small lines below all panels; long ones are broken at semicolons."""
    characters = int(figure.get_figwidth() * 72 / (6.5 * 0.55))
    parts = [
        textwrap.fill(part, characters)
        for line in lines
        for part in (line if len(line) <= characters else line.replace("; ", ";\n")).split("\n")
    ]
    figure.supxlabel("\n".join(parts), fontsize=6.5, color=GREY)


def origin(provenance: Mapping[str, Any]) -> str:
    """Return one line on the run and views of a report."""
    p, test = provenance, provenance["views"]["test"]
    contexts = "no context"
    if report_uses_context(p):
        contexts = f"{p['draws']} {p['context_split']} context{'s' if p['draws'] > 1 else ''}"
        if p["draws_of"] == "orders":
            contexts = f"{p['draws']} orders of one {p['context_split']} context"
    spread = " (mean ± std)" if p["draws"] > 1 else ""
    return (
        f"{p['data']}, config {p['config']}, seed {p['seed']}, step {p['step']};"
        f" {contexts}{spread}, {test['views']:,} {test['split']} views"
    )


def save(figure: Figure, path: epath.Path, dpi: int) -> None:
    """Write a figure as a PNG, without pyplot and thus without a display."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    with path.open("wb") as file:  # a tenth smaller without the unused alpha channel
        Image.open(drawn).convert("RGB").save(file, "PNG", optimize=True)
