"""A run's curves: what its monitor saw, and its losses, by step."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from contextssl_jax.figures.style import GREY, finish, save, stroke
from contextssl_jax.storage.safe_json import parse_json

Line = Mapping[str, float]
_LARGEST = 1e15
_PANELS = 16
_LOSSES = {"loss_contrastive": "InfoNCE", "loss_predictor": "predictor MSE"}
# What a line may tell; anything else is not of a run, and not drawn.
_WORD = r"[\w+.-]{1,50}"
_NAME = re.compile(
    rf"step|{_WORD}|predictor_r2/{_WORD}|monitor/knn|monitor/r2/{_WORD}/{_WORD}/[0-9]{{1,9}}"
)


def draw_curves(workdir: epath.Path, path: epath.Path) -> bool:
    """Draws workdir/metrics.jsonl, and says whether it had any lines to draw.

    Above, what the monitor saw on held-out data: R² of each group under each environment at both
    context lengths, and classes. Below, the training's losses, alignment and predictor.

    Args:
      workdir: of the run.
      path: of the PNG.
    """
    lines = _read(workdir / "metrics.jsonl")
    if lines:
        save(_figure(lines), path, dpi=110)
    return bool(lines)


def _read(file: epath.Path) -> list[Line]:
    """Reads the lines that a run may have written; not one that a kill cut short, nor others."""
    text = file.read_bytes().decode(errors="replace") if file.exists() else ""
    return [line for line in map(_line, text.splitlines()) if line]


def _line(row: str) -> Line:
    try:
        read = parse_json(row)
    except ValueError:
        return {}
    if not isinstance(read, dict):
        return {}
    line = {k: v for k, v in read.items() if _NAME.fullmatch(k) and _plotted(v)}
    return line if "step" in line else {}


def _plotted(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < _LARGEST


def _figure(lines: Sequence[Line]) -> Figure:
    names = list(dict.fromkeys(name for line in lines for name in line))
    seen = [name.split("/")[2:] for name in names if name.startswith("monitor/r2/")]
    groups = list(dict.fromkeys(group for _, group, _ in seen))[:_PANELS]
    columns = max(3, len(groups) + 1)
    figure = Figure(figsize=(3.6 * columns, 5.6), layout="constrained")
    axes = figure.subplots(2, columns)
    for axis, group in zip(axes[0], groups, strict=False):
        _draw_group(axis, lines, group, [(e, n) for e, g, n in seen if g == group])
    _draw(axes[0, len(groups)], lines, {"monitor/knn": "encoder"}, "kNN accuracy, held out")
    losses = {n: _LOSSES.get(n, n[5:].replace("_", " ")) for n in names if n.startswith("loss_")}
    _draw(axes[1, 0], lines, losses, "losses")
    axes[1, 0].set_yscale("log")
    axes[1, 0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[1, 0].yaxis.set_major_formatter(ScalarFormatter())
    axes[1, 0].yaxis.set_minor_formatter(NullFormatter())
    alignment = {
        "alignment_accuracy": "accuracy",
        "label_accuracy": "accuracy of labels",
        "similarity_positive": "cosine of positives",
        "similarity_negative": "cosine of negatives",
    }
    _draw(axes[1, 1], lines, alignment, "alignment, training")
    predictor = {
        n: n.split("/")[1].replace("_", ", ") for n in names if n.startswith("predictor_r2/")
    }
    _draw(axes[1, 2], lines, predictor, "predictor R² (group, token), training")
    for axis in axes.flat:
        if axis.lines:
            axis.set_xlabel("step", fontsize=9)
        else:
            axis.set_axis_off()
    return figure


def _draw_group(
    axis: Axes, lines: Sequence[Line], group: str, rows: Sequence[tuple[str, str]]
) -> None:
    """One group's R² without context, the same in all environments, and after each's context."""
    longest = max((length for _, length in rows), key=int)
    first = rows[0][0]
    alone = {"color": GREY, "linestyle": ":"} if int(longest) else stroke(0)
    _plot(axis, lines, f"monitor/r2/{first}/{group}/0", "no context", alone)
    # A method that reads no contexts has nothing after 0 tokens.
    for i, environment in enumerate(dict.fromkeys(e for e, n in rows if int(n))):
        name = f"monitor/r2/{environment}/{group}/{longest}"
        _plot(axis, lines, name, f"{environment} context, {longest} tokens", stroke(i))
    axis.set_ylim(min(0, axis.get_ylim()[0]), 1)
    finish(axis, f"{group}: R² of a ridge probe, held out")
    axis.legend(fontsize=8, framealpha=0.9)


def _draw(axis: Axes, lines: Sequence[Line], curves: Mapping[str, str], title: str) -> None:
    for i, (name, label) in enumerate(curves.items()):
        _plot(axis, lines, name, label, stroke(i))
    if axis.lines:
        finish(axis, title)
        axis.legend(fontsize=8, framealpha=0.9)


def _plot(
    axis: Axes, lines: Sequence[Line], name: str, label: str, stroke: Mapping[str, Any]
) -> None:
    points = [(line["step"], line[name]) for line in lines if name in line]
    if points:
        axis.plot(*np.transpose(points), label=label, linewidth=1.8, **stroke)
