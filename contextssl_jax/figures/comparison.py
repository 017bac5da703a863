"""Several runs in one figure: each group's R² in its own environment and in the others."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from contextssl_jax.evaluation.contexts import other_environments
from contextssl_jax.evaluation.parameter_probes import PROBES, TARGETS
from contextssl_jax.figures.style import (
    GREY,
    Style,
    band,
    color_of,
    curve,
    finish,
    footer,
    legend_above,
    length_axis,
    marker,
    origin,
    save,
)

OWN: Style = {"linestyle": "-"}
OTHER: Style = {"linestyle": (0, (3, 1.5))}
Values = dict[str, float]  # by length


def draw_comparison(
    reports: Mapping[str, Mapping[str, Any]],
    path: epath.Path,
    probe: str = "linear",
    target: str = "single",
) -> None:
    """Draw each group's R² in its own environment and in those of the other groups.

    Args:
      reports: by the run's name; their lengths, groups and environments may differ.
      path: of the PNG.
      probe: a key of PROBES.
      target: a key of TARGETS.
    """
    save(_figure(reports, probe, target), path, dpi=160)


def _figure(reports: Mapping[str, Mapping[str, Any]], probe: str, target: str) -> Figure:
    groups = list(dict.fromkeys(g for report in reports.values() for g in report["r2_features"]))
    size = max(3.6, 2.4 * len(groups)), 3.2 + 0.3 * len(reports)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(groups), squeeze=False)[0]
    axes[0].set_ylabel(r2_label(target), fontsize=9)
    for axis, group in zip(axes, groups, strict=True):
        _panel(axis, reports, group, probe, target)
    runs = [
        Line2D([], [], color=color_of(i), label=name, linewidth=1.8, **marker(i))
        for i, name in enumerate(reports)
    ]
    kinds = [
        Line2D([], [], color=GREY, label="own context", **OWN),
        Line2D([], [], color=GREY, label="other groups' (or none)", **OTHER),
    ]
    legend_above(figure, [*kinds, *runs])
    footer(figure, [f"{name}: {origin(r['provenance'])}" for name, r in reports.items()])
    return figure


def _panel(
    axis: Axes, reports: Mapping[str, Mapping[str, Any]], group: str, probe: str, target: str
) -> None:
    lengths: set[int] = set()
    for i, (name, report) in enumerate(reports.items()):
        drawn = False
        for kind, dashes, environments in (
            ("own", OWN, [group]),
            ("other", OTHER, other_environments(report["r2"], group)),
        ):
            values = mean_over(report["r2"], environments, group, probe, target)
            if not values or (kind == "other" and drawn and set(values) == {"0"}):
                continue  # without a context all environments are the same
            drawn = True
            x, y = curve(values)
            lengths.update(x)
            line: Style = {"color": color_of(i), "linewidth": 1.8} | dashes | marker(i)
            axis.plot(x, y, label=f"{name}, {kind}", clip_on=False, **line)
            # The mean of deviations, an upper bound of the unknown deviation of the mean.
            spread = mean_over(report.get("r2_std", {}), environments, group, probe, target)
            if spread:
                band(axis, values, spread, color_of(i))
    length_axis(axis, lengths)
    axis.set_ylim(min(0.0, axis.dataLim.y0), 1)
    finish(axis, f"{group}: {PROBES[probe]} probe")


def r2_label(target: str) -> str:
    """Return the label of an axis of R²."""
    return f"R² ({TARGETS[target]}), held out"


def mean_over(
    tree: Mapping[str, Any], environments: list[str], group: str, probe: str, target: str
) -> Values:
    """Return the mean over the environments that have the group, by length."""
    found = [tree[e][group][probe][target] for e in environments if group in tree.get(e, {})]
    return {n: float(np.mean([values[n] for values in found])) for n in found[0]} if found else {}
