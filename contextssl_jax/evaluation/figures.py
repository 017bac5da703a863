"""Pictures of a run."""

import json
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from etils import epath

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter  # noqa: E402

# Okabe and Ito's colors, told apart by all eyes and in print; dashes tell them apart again.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES = ("-", "--", "-.", ":")
_NO_CONTEXT = "#777777"

Line = Mapping[str, float]


def draw_curves(workdir: epath.Path) -> epath.Path:
    """Draws workdir/metrics.jsonl to workdir/curves.png, and returns that path.

    Above, what the monitor saw on held-out data: R² of each group under each environment at both
    context lengths, and classes. Below, the training's losses, alignment and predictor.
    """
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    names = list(dict.fromkeys(name for line in lines for name in line))
    seen = [name.split("/")[2:] for name in names if name.startswith("monitor/r2/")]
    groups = list(dict.fromkeys(group for _, group, _ in seen))
    columns = max(3, len(groups) + 1)
    figure, axes = plt.subplots(2, columns, figsize=(3.6 * columns, 5.6), layout="constrained")
    for axis, group in zip(axes[0], groups, strict=False):
        _draw_adaptation(axis, lines, group, [(e, n) for e, g, n in seen if g == group])
    _draw(axes[0, len(groups)], lines, {"monitor/knn": "encoder"}, "kNN accuracy, held out")
    losses = {"loss_contrastive": "InfoNCE", "loss_predictor": "predictor MSE"}
    _draw(axes[1, 0], lines, losses, "losses")
    axes[1, 0].set_yscale("log")
    axes[1, 0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[1, 0].yaxis.set_major_formatter(ScalarFormatter())
    axes[1, 0].yaxis.set_minor_formatter(NullFormatter())
    alignment = {
        "alignment_accuracy": "accuracy",
        "similarity_positive": "cosine of positives",
        "similarity_negative": "cosine of negatives",
    }
    _draw(axes[1, 1], lines, alignment, "alignment, training")
    predictor = {n: n.split("/")[1].replace("_", ", ") for n in names if "predictor_r2" in n}
    _draw(axes[1, 2], lines, predictor, "predictor R² (group, token), training")
    for axis in axes.flat:
        if axis.lines:
            axis.set_xlabel("step", fontsize=9)
        else:
            axis.set_axis_off()
    path = workdir / "curves.png"
    with path.open("wb") as file:
        figure.savefig(file, dpi=110)
    plt.close(figure)
    return path


def _draw_adaptation(
    axis: Axes, lines: Sequence[Line], group: str, rows: Sequence[tuple[str, str]]
) -> None:
    """One group's R² without context, the same in all environments, and after each's context."""
    longest = max((length for _, length in rows), key=int)
    first = rows[0][0]
    _plot(axis, lines, f"monitor/r2/{first}/{group}/0", "no context", _NO_CONTEXT, ":")
    for i, environment in enumerate(dict.fromkeys(e for e, _ in rows)):
        name = f"monitor/r2/{environment}/{group}/{longest}"
        label = f"{environment} context, {longest} tokens"
        _plot(axis, lines, name, label, _COLORS[i % 6], _DASHES[i % 4])
    axis.set_ylim(min(0, axis.get_ylim()[0]), 1)
    _finish(axis, f"{group}: R² of a ridge probe, held out")


def _draw(axis: Axes, lines: Sequence[Line], curves: Mapping[str, str], title: str) -> None:
    for i, (name, label) in enumerate(curves.items()):
        _plot(axis, lines, name, label, _COLORS[i % 6], _DASHES[i % 4])
    if axis.lines:
        _finish(axis, title)


def _plot(
    axis: Axes, lines: Sequence[Line], name: str, label: str, color: str, dashes: str
) -> None:
    points = [(line["step"], line[name]) for line in lines if name in line]
    if points:
        axis.plot(*np.transpose(points), dashes, color=color, label=label, linewidth=1.8)


def _finish(axis: Axes, title: str) -> None:
    axis.set_title(title, fontsize=10)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, framealpha=0.9)
