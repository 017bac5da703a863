"""R² of a sweep by context length, one color a variant, or by value, one line a length."""

import math
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
from etils import epath
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from contextssl_jax.evaluation.contexts import other_environments
from contextssl_jax.evaluation.parameter_probes import PROBES
from contextssl_jax.figures.comparison import OTHER, OWN, mean_over, r2_label
from contextssl_jax.figures.style import (
    GREY,
    Style,
    band,
    color_of,
    context_name,
    curve,
    finish,
    footer,
    legend_above,
    length_axis,
    marker,
    save,
    spaced,
)
from contextssl_jax.sweeps.pooled import Pooled, Report, Result
from contextssl_jax.sweeps.selection import R2Selection, groups_of, lengths_of

_LEVEL: Style = {"linestyle": (0, (1, 1.5)), "linewidth": 1.2}
_DECADES = 1.5  # least span of values for a logarithmic axis


def draw_sweep(
    results: Sequence[Result],
    selection: R2Selection,
    axis: str | None,
    note: str,
    path: epath.Path,
) -> None:
    """Draw the R² of each group over all variants.

    Args:
      results: variants with reports, at least one.
      selection: the displayed R².
      axis: name of the variants' values; None draws against the context's length.
      note: what the values are of.
      path: of the PNG.
    """
    figure = _by_length(results, selection) if axis is None else _by_value(results, selection, axis)
    footer(figure, [note])
    save(figure, path, dpi=160)


def _by_length(results: Sequence[Result], selection: R2Selection) -> Figure:
    """Draw one panel a group: in its own environment and in the others, against the length."""
    groups = groups_of(results)
    size = max(4.2, 3.0 * len(groups)), 3.2 + 0.16 * len(results)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(groups), squeeze=False)[0]
    axes[0].set_ylabel(r2_label(selection.target), fontsize=9)
    for axis, group in zip(axes, groups, strict=True):
        for i, result in enumerate(results):
            _curves(axis, i, result, selection, group)
        length_axis(axis, map(int, lengths_of(results)))
        finish(axis, f"{group}: {PROBES[selection.probe(group)]} probe")
    _limit(axes)
    variants = [
        Line2D([], [], color=color_of(i), label=result.label, linewidth=1.8, **marker(i))
        for i, result in enumerate(results)
    ]
    kinds = [
        Line2D([], [], color=GREY, label="own context", **OWN),
        Line2D([], [], color=GREY, label="other groups' (or none)", **OTHER),
    ]
    level = Line2D([], [], color=GREY, label="uses no context", **_LEVEL)
    use_context = [result.uses_context for result in results]
    legend_above(
        figure,
        [*(kinds if any(use_context) else []), *([] if all(use_context) else [level]), *variants],
    )
    return figure


def _curves(axis: Axes, i: int, result: Result, selection: R2Selection, group: str) -> None:
    style: Style = {"color": color_of(i), "clip_on": False} | marker(i)
    if not result.uses_context:
        (name,) = result.contexts
        found = result.at(*selection.path(name, group), "0")
        if found.by_seed:
            axis.axhline(found.mean, label=f"{result.label}, level", color=color_of(i), **_LEVEL)
            axis.errorbar([0], [found.mean], [found.std or 0], label=result.label, **style)
        return
    for kind, dashes in (("own", OWN), ("other", OTHER)):
        pooled = {
            length: result.pool(partial(_r2, selection, group, kind, length))
            for length in map(str, sorted(result.lengths()))
        }
        by_length = {length: one for length, one in pooled.items() if one.by_seed}
        if not by_length:
            continue
        means = {length: one.mean for length, one in by_length.items()}
        x, y = curve(means)
        axis.plot(x, y, label=f"{result.label}, {kind}", linewidth=1.8, **style | dashes)
        spread = {length: one.std or 0.0 for length, one in by_length.items()}
        band(axis, means, spread, color_of(i))


def _r2(selection: R2Selection, group: str, kind: str, length: str, report: Report) -> float | None:
    """Return a report's R² of a group in its own environment, or the mean over the others."""
    environments = [group] if kind == "own" else other_environments(report.get("r2", {}), group)
    tree = report.get(selection.key, {})
    return mean_over(tree, environments, group, selection.probe(group), selection.target).get(
        length
    )


def _by_value(results: Sequence[Result], selection: R2Selection, name: str) -> Figure:
    """Draw one panel for each group (column) and trained environment (row), one line a length."""
    groups, lengths = groups_of(results), lengths_of(results)
    trained = dict.fromkeys(
        e for result in results if result.uses_context for e in result.environments
    )
    rows: list[str | None] = [*trained] or [None]
    size = max(4.2, 3.0 * len(groups)), 1.5 + 2.1 * len(rows)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), len(groups), sharex=True, sharey=True, squeeze=False)
    styles = {
        length: {"color": colormaps["viridis"](0.85 * i / max(1, len(lengths) - 1))} | marker(i)
        for i, length in enumerate(lengths)
    }
    for row, environment in enumerate(rows):
        axes[row, 0].set_ylabel(r2_label(selection.target), fontsize=9)
        for axis, group in zip(axes[row], groups, strict=True):
            for length in lengths:
                _line(axis, results, selection, group, environment, length, styles[length])
            context = f", {context_name(environment)}" if environment else ""
            finish(axis, f"{group}{context}\n{PROBES[selection.probe(group)]} probe")
    _limit(axes.flat)
    for axis in axes[-1]:
        axis.set_xlabel(name, fontsize=9)
    _value_axis(axes[0, 0], [result.value or 0.0 for result in results])
    legend_above(
        figure,
        [
            Line2D([], [], label=f"{n} tokens", linewidth=1.8, **styles[n])  # type: ignore[arg-type]
            for n in lengths
        ],
    )
    return figure


def _line(
    axis: Axes,
    results: Sequence[Result],
    selection: R2Selection,
    group: str,
    environment: str | None,
    length: str,
    style: Style,
) -> None:
    """Draw R² against the variants' values; a method without contexts is in every panel."""
    found: list[tuple[float, Pooled]] = []
    for result in sorted(results, key=lambda result: result.value or 0.0):
        name = environment if environment and result.uses_context else next(iter(result.contexts))
        pooled = result.at(*selection.path(name, group), length)
        if pooled.by_seed:
            found.append((result.value or 0.0, pooled))
    if found:
        x, y = [value for value, _ in found], [pooled.mean for _, pooled in found]
        spread = [pooled.std or 0.0 for _, pooled in found]
        axis.errorbar(
            x,
            y,
            spread,
            label=length,
            linewidth=1.6,
            capsize=2.5,
            elinewidth=1.0,
            clip_on=False,
            **style,
        )


def _value_axis(axis: Axes, values: Sequence[float]) -> None:
    """Set a tick at each value, on a logarithmic axis where values span decades."""
    ticks = sorted(set(values))
    if ticks[0] > 0 and math.log10(ticks[-1] / ticks[0]) > _DECADES:
        axis.set_xscale("log")
    places = axis.xaxis.get_transform().transform(np.array(ticks, float))
    labels = [f"{value:g}".replace("0.", ".", value < 1) for value in ticks]
    axis.set_xticks(ticks, spaced(places, labels, 0.075))
    axis.xaxis.set_minor_locator(NullLocator())


def _limit(axes: Iterable[Axes]) -> None:
    """Set the y axis of all panels from 0, or the least R², to 1."""
    panels = list(axes)
    lows = [axis.dataLim.y0 for axis in panels]
    for axis in panels:
        axis.set_ylim(min(0.0, *(low for low in lows if np.isfinite(low))), 1)
