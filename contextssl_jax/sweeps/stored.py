"""A sweep.json: the values of each seed, the runs that they are from, and one table."""

from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from contextssl_jax.errors import UserError
from contextssl_jax.reports.page import Cell, Table
from contextssl_jax.storage.safe_json import read_json, truncate
from contextssl_jax.sweeps.definition import Sweep
from contextssl_jax.sweeps.pooled import Result
from contextssl_jax.sweeps.runs import Run, State

# Settings in which compared reports should be equal.
ALIKE = (
    "evaluation_seed",
    "draws",
    "draws_of",
    "context_split",
    "sparse",
    "rounding",
    "probe",
    "exclude_source",
)
_PROVENANCE = ("config", "step", "seed", "method", "data", "git", "device", "jax", *ALIKE)


def to_tree(
    folder: epath.Path,
    sweep: Sweep,
    runs: Sequence[Run],
    states: Sequence[State],
    results: Sequence[Result],
) -> dict[str, Any]:
    """Return a sweep's runs and values as a tree for JSON, with the paths of reports."""
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
                "provenance": {name: state.report["provenance"].get(name) for name in _PROVENANCE}
                if state.report
                else None,
            }
            for run, state in zip(runs, states, strict=True)
        ],
        "figures": {result.label: result.figures() for result in results},
    }


def to_cells(table: Table) -> dict[str, Any]:
    """Return a table as a tree for JSON."""
    return {
        "header": list(table.header),
        "rows": [list(row) for row in table.rows],
        "caption": table.caption,
        "quoted": sorted(table.quoted),
    }


def read_layout(folder: epath.Path) -> Table:
    """Read a sweep's table in the paper's layout; its caption includes the runs' provenance.

    Raises:
      UserError: there is none, or it is damaged.
    """
    file = folder / "sweep.json"
    try:
        tree = read_json(file)
        layout, origin = tree["layout"], _describe_runs(tree)
        header = tuple(_text(name) for name in layout["header"])
        rows = [[_cell(cell) for cell in row] for row in layout["rows"]]
        if not rows or any(len(row) != len(header) for row in rows):
            raise ValueError("layout.rows")
        quoted = frozenset(int(i) for i in layout["quoted"])
        caption = f"{origin} {_text(layout['caption'])}"
        return Table(_text(tree["title"]), header, rows, caption, quoted)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{file}: is no sweep's page with values ({truncate(error)}). Make it with"
            " python -m launch.sweep --report"
        ) from error


def _describe_runs(tree: Mapping[str, Any]) -> str:
    """Return a sentence on command, seeds, steps and devices of a sweep."""
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
