"""Pictures of a run."""

import json
from collections.abc import Sequence

import matplotlib
import numpy as np
from etils import epath

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

# Okabe and Ito's colors, told apart by all eyes and in print; dashes tell them apart again.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def draw_curves(workdir: epath.Path) -> epath.Path | None:
    """Draws workdir/metrics.jsonl to workdir/curves.png: losses, the predictor, the monitor.

    Returns:
      The picture's path; None where nothing was logged.
    """
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    names = dict.fromkeys(name for line in lines for name in line if name != "step")
    environments = list(dict.fromkeys(n.split("/")[2] for n in names if n.startswith("monitor/r2")))
    groups = list(dict.fromkeys(n.split("/")[3] for n in names if n.startswith("monitor/r2")))
    panels = 3 + len(groups)
    figure, axes = plt.subplots(1, panels, figsize=(3.4 * panels, 3.0), layout="constrained")
    losses = {"loss_contrastive": "InfoNCE", "loss_predictor": "predictor MSE"}
    _plot(axes[0], lines, losses, "losses", "log")
    similarity = {
        "alignment_accuracy": "alignment accuracy",
        "similarity_positive": "cosine of positives",
        "similarity_negative": "cosine of negatives",
        "monitor/knn": "kNN accuracy, held out",
    }
    _plot(axes[1], lines, {n: t for n, t in similarity.items() if n in names}, "alignment")
    predictor = {n: n.split("/")[1].replace("_", ", ") for n in names if "predictor_r2" in n}
    _plot(axes[2], lines, predictor, "predictor R² (training)")
    for axis, group in zip(axes[3:], groups, strict=True):
        curves = {
            name: f"{environment} context, {name.split('/')[4]} tokens"
            for environment in environments
            for name in names
            if name.startswith(f"monitor/r2/{environment}/{group}/")
        }
        _plot(axis, lines, curves, f"{group}: R² of a ridge probe (held out)")
    for axis in axes:
        axis.set_xlabel("step")
    path = workdir / "curves.png"
    with path.open("wb") as file:
        figure.savefig(file, dpi=130)
    plt.close(figure)
    return path


def _plot(
    axis: Axes, lines: Sequence[dict], curves: dict[str, str], title: str, scale: str = "linear"
) -> None:
    for i, (name, label) in enumerate(curves.items()):
        points = np.array([(line["step"], line[name]) for line in lines if name in line])
        style = ("-", "--", ":", "-.")[i % 4]
        if len(points):
            axis.plot(*points.T, style, color=_COLORS[i % len(_COLORS)], label=label, linewidth=1.6)
    axis.set_title(title, fontsize=9)
    axis.set_yscale(scale)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    if curves:
        axis.legend(fontsize=7)
