"""A sheet of objects3d's images: python -m contextssl_jax.figures.objects3d --out=objects3d.png.

Each row varies one factor; the last ones have every class in the same scene.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from etils import epath
from matplotlib.figure import Figure

from contextssl_jax.data.objects3d.shading import Scene, render
from contextssl_jax.data.objects3d.shapes import draw_instances, draw_recipes
from contextssl_jax.errors import UserError
from contextssl_jax.figures.style import save
from contextssl_jax.storage.paths import error_reason, io_errors, resolve_path
from contextssl_jax.transforms.quaternion import from_euler

_COLUMNS, _CLASSES = 8, 24
_SIDE, _SAMPLES = 128, 2
_SPLIT = 1  # of the instances
_INCHES, _GAP, _LABEL = 0.95, 0.03, 1.05
_DEFAULT = dict(rotation=(0.2, -0.3, 0.5), floor=0.55, light=0.12, polar=0.55, azimuth=5.5)


class Row(NamedTuple):
    """A row of the sheet."""

    label: str
    classes: np.ndarray  # int [n]
    instances: np.ndarray  # int [n]
    scene: dict[str, np.ndarray]  # factors that differ from the default scene, [n, ...]


def draw_sheet(path: epath.Path) -> None:
    """Draw the sheet as a PNG."""
    rows = _rows()
    recipes = draw_recipes(_CLASSES)
    figure = Figure(
        figsize=(_LABEL + _COLUMNS * (_INCHES + _GAP), len(rows) * (_INCHES + _GAP) + _GAP)
    )
    page = figure.add_axes((0, 0, 1, 1))
    page.set(xlim=(0, figure.get_figwidth()), ylim=(figure.get_figheight(), 0), autoscale_on=False)
    page.set_axis_off()
    draw = jax.jit(partial(render, side=_SIDE, samples=_SAMPLES))
    for r, row in enumerate(rows):
        shape = draw_instances(recipes, row.classes, [(_SPLIT, int(i)) for i in row.instances])
        y = _GAP + r * (_INCHES + _GAP)
        page.text(_LABEL - 0.08, y + _INCHES / 2, row.label, fontsize=9, ha="right", va="center")
        for c, image in enumerate(np.asarray(draw(shape, _scene(row.scene)))):
            x = _LABEL + c * (_INCHES + _GAP)
            extent = (x, x + _INCHES, y + _INCHES, y)
            page.imshow(image, extent=extent, aspect="auto", interpolation="bicubic")
    save(figure, path, dpi=102)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status, 2 for a user error."""
    parser = argparse.ArgumentParser(
        prog="python -m contextssl_jax.figures.objects3d", description="Draws a sheet of objects."
    )
    parser.add_argument("--out", required=True, metavar="FILE.png")
    address = parser.parse_args(arguments).out
    try:
        out = resolve_path(address, "--out")
        out.parent.mkdir(parents=True, exist_ok=True)
        draw_sheet(out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except io_errors() as error:
        print(f"error: --out: cannot write {out} ({error_reason(error)})", file=sys.stderr)
        return 2
    print(f"see {out}")
    return 0


def _rows() -> list[Row]:
    rng = np.random.default_rng(0)
    turns, same = np.arange(_COLUMNS) / _COLUMNS, np.zeros(_COLUMNS, int)
    any_scene = dict(floor=rng.random((3, 8)), light=rng.random((3, 8)))
    any_scene |= dict(rotation=rng.uniform(-np.pi / 2, np.pi / 2, (3, 8, 3)))
    any_scene |= dict(
        polar=rng.uniform(0, np.pi / 4, (3, 8)),
        azimuth=2 * np.pi * turns[None] + any_scene["floor"],
    )
    rows = [
        Row(
            "one class,\nany scene", same + c, np.arange(8), {k: v[i] for k, v in any_scene.items()}
        )
        for i, c in enumerate((3, 9, 17))
    ]
    angle = np.linspace(-np.pi / 2, np.pi / 2, _COLUMNS)
    for axis, name in enumerate("xyz"):
        euler = np.where(np.arange(3) == axis, angle[:, None], np.array(_DEFAULT["rotation"]))
        rows.append(Row(f"rotation\nabout {name}", same + 3, same, {"rotation": euler}))
    rows += [
        Row("floor hue", same + 3, same, {"floor": turns}),
        Row("light hue", same + 3, same, {"light": turns}),
        Row("light\ndirection", same + 3, same, {"azimuth": 2 * np.pi * turns}),
        Row("instances\nof a class", same + 3, np.arange(8), {}),
    ]
    for first in range(0, _CLASSES, _COLUMNS):
        last = first + _COLUMNS
        rows.append(Row(f"classes\n{first + 1} to {last}", np.arange(first, last), same, {}))
    return rows


def _scene(changed: dict[str, np.ndarray]) -> Scene:
    """Return the default scene with a row's changes."""

    def of(name: str) -> np.ndarray:
        default = np.asarray(_DEFAULT[name], float)
        return np.broadcast_to(changed.get(name, default), (_COLUMNS, *default.shape))

    def circle(turns: np.ndarray) -> np.ndarray:
        return np.stack([np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)], axis=1)

    azimuth = np.stack([np.cos(of("azimuth")), np.sin(of("azimuth"))], axis=1)
    leaves = (
        *(from_euler(of("rotation")), circle(of("floor")), circle(of("light"))),
        np.sin(of("polar"))[:, None] * azimuth,
    )
    return Scene(*(leaf.astype(np.float32) for leaf in leaves))


if __name__ == "__main__":
    sys.exit(main())
