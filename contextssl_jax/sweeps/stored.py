"""A sweep.json: every figure of each seed, the runs that they are from, and one table to show."""

from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from contextssl_jax.errors import UserError
from contextssl_jax.reports.page import Cell, Table
from contextssl_jax.storage.safe_json import read_json, truncate
from contextssl_jax.sweeps.definition import Sweep
from contextssl_jax.sweeps.pooled import Result
from contextssl_jax.sweeps.runs import Run, State

# In what reports that stand side by side should be alike.
ALIKE = ("evaluation_seed", "draws", "context_split", "sparse", "probe", "exclude_source")
_ABOUT = ("config", "step", "seed", "method", "data", "git", "device", "jax", *ALIKE)


def to_tree(
    folder: epath.Path,
    sweep: Sweep,
    runs: Sequence[Run],
    states: Sequence[State],
    results: Sequence[Result],
) -> dict[str, Any]:
    """Returns a sweep's runs and figures as a tree for JSON; a run's report is told as a path."""
    return {
        "title": sweep.title,
        "axis": sweep.axis,
        "overrides": dict(sweep.overrides),
        "runs": [
            {
                "label": run.point.label,
                "value": run.point.value,
                "config": run.point.config,
                "overrides": dict(run.point.overrides),
                "seed": run.seed,
                "state": state.kind,
                "said": state.said,
                "report": str(run.report.relative_to(folder)),
                "provenance": {name: state.report["provenance"].get(name) for name in _ABOUT}
                if state.report
                else None,
            }
            for run, state in zip(runs, states, strict=True)
        ],
        "figures": {result.label: result.figures() for result in results},
    }


def to_cells(table: Table) -> dict[str, Any]:
    """Returns a table as a tree for JSON."""
    return {
        "header": list(table.header),
        "rows": [list(row) for row in table.rows],
        "caption": table.caption,
        "quoted": sorted(table.quoted),
    }


def read_layout(folder: epath.Path) -> Table:
    """Reads a sweep's table in the paper's layout; its caption says how its figures were made.

    Raises:
      UserError: there is none, or it is damaged.
    """
    file = folder / "sweep.json"
    try:
        tree = read_json(file)
        layout, made = tree["layout"], _origin(tree)
        header = tuple(_text(name) for name in layout["header"])
        rows = [[_cell(cell) for cell in row] for row in layout["rows"]]
        if not rows or any(len(row) != len(header) for row in rows):
            raise ValueError("layout.rows")
        quoted = frozenset(int(i) for i in layout["quoted"])
        caption = f"{made} {_text(layout['caption'])}"
        return Table(_text(tree["title"]), header, rows, caption, quoted)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{file}: is no sweep's page with figures ({truncate(error)}); make it with"
            " python -m launch.sweep --report"
        ) from error


def _origin(tree: Mapping[str, Any]) -> str:
    """Says how a sweep's figures were made."""
    made = [run["provenance"] for run in tree["runs"] if run["provenance"]]
    seeds = sorted({int(p["seed"]) for p in made})
    steps = sorted({int(p["step"]) for p in made})
    devices = sorted({_text(p["device"]) for p in made})
    missing = len(tree["runs"]) - len(made)
    return (
        f"By {_text(tree['command'])}: {len(made)} runs, seeds {', '.join(map(str, seeds))}, of"
        f" {' or '.join(f'{n:,}' for n in steps)} steps on {' or '.join(devices)}"
        + (f"; {missing} runs are missing." if missing else ".")
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{truncate(value)} is no text")
    return value


def _cell(value: Any) -> Cell:
    if value is not None and not isinstance(value, str | int | float):
        raise TypeError(f"{truncate(value)} is no cell")
    return value
