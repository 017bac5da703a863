"""The runs of a sweep: folder, options and state of each."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from etils import epath
from ml_collections import ConfigDict

from contextssl_jax.config import flatten, parse_command_line
from contextssl_jax.errors import UserError
from contextssl_jax.evaluation.stored import read_report, report_uses_context
from contextssl_jax.reports.command import REPORT, report_exists
from contextssl_jax.run.metadata import read_starts
from contextssl_jax.run.workdir import check_same_run, fingerprint
from contextssl_jax.storage.paths import (
    error_reason,
    io_errors,
    is_complete,
    list_folder,
    list_numbered,
)
from contextssl_jax.storage.safe_json import read_json, truncate
from contextssl_jax.sweeps.definition import Sweep, Variant, as_text

# Settings of contexts, which do not affect a method without contexts.
OF_CONTEXTS = ("draws", "draws_of", "context_split", "sparse")
Report = Mapping[str, Any]
_MAX_LINES = 20  # stored of a failed run's output


class Run(NamedTuple):
    """A variant with one seed."""

    point: Variant
    seed: int
    workdir: epath.Path
    config: ConfigDict
    arguments: tuple[str, ...]  # of contextssl_jax.main

    @property
    def name(self) -> str:
        """Return the run's name."""
        return f"{self.point.label}, seed {self.seed}"

    @property
    def report(self) -> epath.Path:
        """Return the path of its report.json."""
        return self.workdir / "eval" / str(self.config.train.steps) / REPORT


class State(NamedTuple):
    """The state of a run."""

    kind: str  # "done", "failed", "unfinished" or "not begun"
    said: str = ""  # reason, or progress
    report: Report | None = None  # of a run that is done


def list_runs(
    sweep: Sweep, folder: epath.Path, seeds: Iterable[int], settings: Sequence[str] = ()
) -> list[Run]:
    """Return the runs, all variants of the first seed first.

    Args:
      sweep: the sweep.
      folder: of the sweep.
      seeds: of each variant.
      settings: "KEY=VALUE" for all variants; they take precedence over overrides.

    Raises:
      UserError: a config, an option or a value is wrong, or two variants are equal.
    """
    runs = [_run(sweep, folder, point, n, settings) for n in seeds for point in sweep.points]
    groups = {group for run in runs for group in run.config.groups}
    for group in sweep.probes:
        if group not in groups:
            raise UserError(f"probes: {group!r} is none of the groups {', '.join(sorted(groups))}")
    same: dict[str, str] = {}
    for run in runs[: len(sweep.points)]:
        other = same.setdefault(json.dumps(sorted(flatten(run.config))), run.point.label)
        if other != run.point.label:
            raise UserError(f"points: {other!r} and {run.point.label!r} are the same run")
    return runs


def check_folder(folder: epath.Path, sweep: Sweep, runs: Iterable[Run]) -> None:
    """Check that the folder has no runs of other sweeps.

    Raises:
      UserError: it has, or it cannot be read.
    """
    try:
        if (folder / "config.json").exists():
            raise UserError(f"--workdir: {folder} is a run's own. Use a different --workdir")
        known = {point.folder for point in sweep.points}
        unknown = [path.name for path in _points(folder) if path.name not in known]
    except io_errors() as error:
        raise UserError(f"--workdir: cannot use {folder} ({error_reason(error)})") from error
    if unknown:
        named = truncate(", ".join(unknown))
        raise UserError(
            f"--workdir: {folder} holds variants that the sweep has not ({named}). Use a different"
            " --workdir"
        )
    for run in runs:
        check_same_run(str(run.workdir), run.config)


def started_seeds(folder: epath.Path, sweep: Sweep) -> set[int]:
    """Return the seeds of the folder's runs of the sweep."""
    names = {path.name for point in sweep.points for path in _seeds(folder / point.folder)}
    return {int(name.removeprefix("seed_")) for name in names}


def read_state(run: Run) -> State:
    """Return the state of a run, with its report."""
    if report_exists(run.workdir, run.config.train.steps):
        try:
            report = read_report(run.report)
        except UserError as error:
            return State("failed", f"{error}. Remove it to repeat the evaluation")
        # A report of an earlier version has the fingerprint of its start; options may be new since.
        starts = {str(start.get("config")) for start in read_starts(run.workdir)}
        origin = report["provenance"]
        if origin["seed"] != run.seed or origin["config"] not in starts | {fingerprint(run.config)}:
            return State("failed", f"{run.report} is of another run")
        if differences := _settings_differences(report["provenance"], run.config):
            listed = ", ".join(differences)
            return State("failed", f"its report has other settings than the sweep: {listed}")
        return State("done", "", report)
    if _failure(run).exists():
        return State("failed", _read_failure(run))
    steps = [
        int(path.name) for path in list_numbered(run.workdir / "checkpoints") if is_complete(path)
    ]
    if steps:
        return State("unfinished", f"step {steps[-1]} of {run.config.train.steps}")
    return State("unfinished", "nothing saved yet") if run.workdir.exists() else State("not begun")


def write_failure(run: Run, fate: str, said: Sequence[str]) -> None:
    """Write beside a run's folder how it failed, for later pages.

    Args:
      run: the failed run.
      fate: how it failed, such as "with status 2".
      said: the last lines of its output.
    """
    failure = {"fate": fate, "said": list(said[-_MAX_LINES:]) or ["no output"]}
    with suppress(*io_errors()):  # such as a full disk, possibly the reason of the failure
        run.workdir.parent.mkdir(parents=True, exist_ok=True)
        _failure(run).write_text(json.dumps(failure, indent=1) + "\n")


def remove_failure(run: Run) -> None:
    """Remove what write_failure has written."""
    with suppress(*io_errors()):
        _failure(run).unlink(missing_ok=True)


def _run(
    sweep: Sweep, folder: epath.Path, point: Variant, seed: int, settings: Sequence[str]
) -> Run:
    workdir = folder / point.folder / f"seed_{seed}"
    options = {**sweep.overrides, **point.overrides}
    changed = [f"--config.{name}={as_text(value)}" for name, value in options.items()]
    arguments = [
        *(f"--config={point.config}", f"--workdir={workdir}", *changed),
        *(f"--config.{setting}" for setting in settings),
        f"--config.seed={seed}",
    ]
    config = _resolved(point, arguments)
    if not config.eval.every:  # a sweep needs reports
        arguments.append(f"--config.eval.every={config.train.steps}")
        config = _resolved(point, arguments)
    return Run(point, seed, workdir, config, tuple(arguments))


def _resolved(point: Variant, arguments: Sequence[str]) -> ConfigDict:
    try:
        return parse_command_line(["", *arguments], ("train",)).config
    except UserError as error:
        raise UserError(f"{point.label!r}: {error}") from error


def _settings_differences(provenance: Mapping[str, Any], config: ConfigDict) -> list[str]:
    """Return the settings in which a report differs from the config; others of eval may differ."""
    options = config.eval
    expected = {
        "evaluation_seed": options.seed,
        "probe": options.probe.to_dict(),
        "rounding": options.rounding,
    }
    if report_uses_context(provenance):
        for name in ("lengths", *OF_CONTEXTS):
            expected[name] = options[name]
    expected = json.loads(json.dumps(expected))
    return [
        f"{name} {truncate(provenance.get(name))}, not {truncate(value)}"
        for name, value in expected.items()
        if provenance.get(name) != value
    ]


def _read_failure(run: Run) -> str:
    try:
        failure = read_json(_failure(run))
        return f"{truncate(failure['fate'])}: {truncate(failure['said'][-1])}"
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return "for an unreadable reason"


def _failure(run: Run) -> epath.Path:
    return run.workdir.with_name(f"{run.workdir.name}.failed")


def _points(folder: epath.Path) -> list[epath.Path]:
    """Return the folders of variants, which hold runs."""
    return [path for path in list_folder(folder) if path.is_dir() and _seeds(path)]


def _seeds(point: epath.Path) -> list[epath.Path]:
    return [
        path
        for path in list_folder(point)
        if re.fullmatch(r"seed_(0|[1-9][0-9]{0,8})", path.name) and (path / "config.json").exists()
    ]
