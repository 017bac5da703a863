"""R² of each group against the length of the context, by environment."""

from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from contextssl_jax.evaluation.parameter_probes import PROBES
from contextssl_jax.evaluation.stored import report_uses_context
from contextssl_jax.figures.style import (
    GREY,
    LONGER,
    Style,
    band,
    context_name,
    curve,
    finish,
    footer,
    legend_above,
    length_axis,
    marker,
    origin,
    save,
    stroke,
)

# One that misses directions of small variance, and one that uses them.
_ROWS = ("linear", "ridge_weak")
_TARGET = "single"
_FEATURES: Style = {"color": GREY, "linestyle": (0, (1, 1.5)), "linewidth": 1.2}
_WIDE, _THIN = 3.4, 1.5


def draw_adaptation(report: Mapping[str, Any], path: epath.Path) -> None:
    """Draw how well probes predict each group after contexts of each environment, by length.

    Args:
      report: a report.json.
      path: of the PNG.
    """
    save(_figure(report), path, dpi=160)


def _figure(report: Mapping[str, Any]) -> Figure:
    groups = list(report["r2_features"])
    figure = Figure(figsize=(max(3.6, 2.4 * len(groups)), 5.0), layout="constrained")
    axes = figure.subplots(len(_ROWS), len(groups), sharex=True, sharey="col", squeeze=False)
    for row, probe in enumerate(_ROWS):
        axes[row, 0].set_ylabel("R², held out", fontsize=9)
        for column, group in enumerate(groups):
            _panel(axes[row, column], report, group, probe)
    for column in range(len(groups)):
        lowest = min(0.0, *(axis.dataLim.y0 for axis in axes[:, column]))
        axes[0, column].set_ylim(lowest, 1)
    for axis in axes[:-1].flat:
        axis.set_xlabel("")
    entries: list[Artist] = [
        *_legend(list(report["r2"]), report_uses_context(report["provenance"]))
    ]
    if _exceeded_tokens(report):
        entries.append(Patch(label="longer than in training", **LONGER))
    legend_above(figure, entries)
    footer(figure, [origin(report["provenance"])])
    return figure


def _panel(axis: Axes, report: Mapping[str, Any], group: str, probe: str) -> None:
    features = report["r2_features"][group][probe][_TARGET]
    axis.axhline(features, label="encoder's features", **_FEATURES)
    lengths: set[int] = set()
    # Without a context all environments are the same.
    environments = list(report["r2"])
    if not report_uses_context(report["provenance"]):
        environments = environments[:1]
    for i, environment in enumerate(environments):
        r2 = report["r2"][environment]
        values = r2[group][probe][_TARGET]
        x, y = curve(values)
        lengths.update(x)
        own = environment == group
        # The wide line of the own environment is below the others, which it would hide.
        line: Style = {"linewidth": _WIDE if own else _THIN, "zorder": 2.1 if own else 2.5}
        axis.plot(
            x, y, label=context_name(environment), clip_on=False, **line, **stroke(i), **marker(i)
        )
        if "r2_std" in report:
            spread = report["r2_std"][environment][group][probe][_TARGET]
            band(axis, values, spread, stroke(i)["color"])
    length_axis(axis, lengths)
    if trained := _exceeded_tokens(report):
        axis.axvspan(trained, max(lengths), **LONGER)
    finish(axis, f"{group}: {PROBES[probe]} probe")


def _exceeded_tokens(report: Mapping[str, Any]) -> int | None:
    """Return the longest context of training if some evaluated ones are longer."""
    provenance = report["provenance"]
    trained: int | None = provenance.get("trained_tokens")  # None in reports of earlier versions
    return trained if trained and max(provenance["lengths"]) > trained else None


def _legend(environments: Sequence[str], uses_context: bool) -> list[Line2D]:
    features = Line2D([], [], label="encoder's features", **_FEATURES)
    if not uses_context:
        dot = {"color": stroke(0)["color"], "linestyle": ""}
        return [Line2D([], [], label="embeddings", **dot, **marker(0)), features]
    lines = [
        Line2D([], [], label=context_name(environment), linewidth=_THIN, **stroke(i), **marker(i))
        for i, environment in enumerate(environments)
    ]
    own = Line2D([], [], label="wide: the group's own", color=GREY, linewidth=_WIDE)
    return [*lines, own, features]
