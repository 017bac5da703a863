"""A run's curves by step: values of the monitor, and losses."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from contextssl_jax.figures.style import GREY, finish, save, stroke
from contextssl_jax.storage.safe_json import read_json_lines

Line = Mapping[str, float]
_MAX_ABS = 1e15
_MAX_PANELS = 16
_LOSSES = {"loss_contrastive": "InfoNCE", "loss_predictor": "predictor MSE"}
# Names that a line may have; others are not drawn.
_WORD = r"[\w+.-]{1,50}"
_NAME = re.compile(
    rf"step|{_WORD}|predictor_r2/{_WORD}|monitor/knn|monitor/r2/{_WORD}/{_WORD}/[0-9]{{1,9}}"
)


def draw_curves(workdir: epath.Path, path: epath.Path) -> bool:
    """Draw workdir/metrics.jsonl and return whether it had any lines.

    Top: the monitor's values on held-out data, R² of each group in each environment at both
    context lengths, and kNN accuracy. Bottom: losses, alignment and predictor in training.

    Args:
      workdir: of the run.
      path: of the PNG.
    """
    lines = _read(workdir / "metrics.jsonl")
    if lines:
        save(_figure(lines), path, dpi=110)
    return bool(lines)


def _read(file: epath.Path) -> list[Line]:
    """Return the valid lines."""
    return [line for line in map(_line, read_json_lines(file)) if line]


def _line(values: Mapping[str, Any]) -> Line:
    line = {k: v for k, v in values.items() if _NAME.fullmatch(k) and _is_plottable(v)}
    return line if "step" in line else {}


def _is_plottable(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < _MAX_ABS


def _figure(lines: Sequence[Line]) -> Figure:
    names = list(dict.fromkeys(name for line in lines for name in line))
    seen = [name.split("/")[2:] for name in names if name.startswith("monitor/r2/")]
    groups = list(dict.fromkeys(group for _, group, _ in seen))[:_MAX_PANELS]
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
    """Draw one group's R² without context, the same everywhere, and after each context."""
    longest = max((length for _, length in rows), key=int)
    first = rows[0][0]
    style = {"color": GREY, "linestyle": ":"} if int(longest) else stroke(0)
    _plot(axis, lines, f"monitor/r2/{first}/{group}/0", "no context", style)
    # A method without contexts has only 0 tokens.
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
