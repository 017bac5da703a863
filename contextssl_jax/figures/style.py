"""What all pictures share: colours, dashes, markers, and how axes are finished."""

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

# Okabe and Ito's colors, told apart by all eyes and in print; dashes tell them apart again.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (7, 2)), (0, (3, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
GREY = "#777777"

PROBES = {
    "ridge_weak": "ridge probe (weak)",
    "ridge_strong": "ridge probe (strong)",
    "linear": "linear probe (Adam)",
    "mlp": "MLP probe (Adam)",
}


def color_of(i: int) -> str:
    """Returns the color of the i-th line."""
    return COLORS[i % len(COLORS)]


def stroke(i: int) -> Style:
    """Returns the color and dashes of the i-th line, for `Axes.plot`."""
    return {"color": color_of(i), "linestyle": DASHES[i % len(DASHES)]}


def marker(i: int) -> Style:
    """Returns the marker of the i-th line, for `Axes.plot`; hollow where its color comes again."""
    shape = MARKERS[i % len(MARKERS)]
    size = 9 if shape == "*" else 5  # a star is mostly air
    if i // len(COLORS) % 2:
        edge = {"markeredgecolor": color_of(i), "markeredgewidth": 1.2}
        fill = {"markerfacecolor": "white", **edge}
    else:
        fill = {"markeredgecolor": "white", "markeredgewidth": 0.6}
    return {"marker": shape, "markersize": size, **fill}


def context_name(environment: str) -> str:
    """Returns what pictures call an environment."""
    plain = "+" in environment or environment == "none"
    return environment if plain else f"{environment} context"


def finish(axis: Axes, title: str) -> None:
    """Sets title, ticks' size and grid."""
    axis.set_title(title, fontsize=10)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)


def length_axis(axis: Axes, lengths: Iterable[int]) -> None:
    """Makes x the context's length: logarithmic, with 0 at the left, a tick at each length."""
    axis.set_xlabel("tokens of context", fontsize=9)
    ticks = sorted(set(lengths))
    shortest = min((length for length in ticks if length), default=1)
    # From 0 to the shortest is linear, and as wide as half a decade.
    axis.set_xscale("symlog", linthresh=shortest, linscale=0.45)
    places = axis.xaxis.get_transform().transform(np.array(ticks, float))
    axis.set_xticks(ticks, spaced(places, list(map(str, ticks))))
    axis.xaxis.set_minor_locator(NullLocator())


def spaced(places: np.ndarray, labels: Sequence[str], gap: float = 0.125) -> list[str]:
    """Empties labels that would touch the next; the last always stays.

    Args:
      places: of the labels, rising.
      labels: to show there.
      gap: between two, as a share of the whole.
    """
    kept: list[str] = []
    free = math.inf
    for place, label in zip(places[::-1], labels[::-1], strict=True):
        kept.append(label if place <= free else "")
        free = place - gap * (places[-1] - places[0]) if kept[-1] else free
    return kept[::-1]


def curve(values: Mapping[str, float]) -> tuple[list[int], list[float]]:
    """Returns a report's {length: value} as rising lengths and their values."""
    lengths = sorted(map(int, values))
    return lengths, [values[str(length)] for length in lengths]


def band(axis: Axes, values: Mapping[str, float], spread: Mapping[str, float], color: str) -> None:
    """Draws a light band of one standard deviation about the values."""
    lengths, middle = curve(values)
    _, std = curve(spread)
    low, high = np.subtract(middle, std), np.add(middle, std)
    axis.fill_between(lengths, low, high, color=color, alpha=0.15, linewidth=0)


def legend_above(figure: Figure, handles: Sequence[Artist]) -> None:
    """Puts one legend above all panels, in as few even rows as the figure has room for."""
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
    """Writes small lines below all panels, those that are too long broken at semicolons."""
    characters = int(figure.get_figwidth() * 72 / (6.5 * 0.55))
    parts = [
        textwrap.fill(part, characters)
        for line in lines
        for part in (line if len(line) <= characters else line.replace("; ", ";\n")).split("\n")
    ]
    figure.supxlabel("\n".join(parts), fontsize=6.5, color=GREY)


def origin(provenance: Mapping[str, Any]) -> str:
    """Says in one line what a report is of."""
    p, test = provenance, provenance["views"]["test"]
    contexts = "no context"
    if report_uses_context(p):
        contexts = f"{p['draws']} {p['context_split']} context{'s' if p['draws'] > 1 else ''}"
    spread = " (mean ± std)" if p["draws"] > 1 else ""
    return (
        f"{p['data']}, config {p['config']}, seed {p['seed']}, step {p['step']};"
        f" {contexts}{spread}, {test['views']:,} {test['split']} views"
    )


def save(figure: Figure, path: epath.Path, dpi: int) -> None:
    """Writes a figure, made without pyplot so that none needs a display or closing, as a PNG."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    with path.open("wb") as file:  # without alpha, which nothing uses, a tenth smaller
        Image.open(drawn).convert("RGB").save(file, "PNG", optimize=True)
