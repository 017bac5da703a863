"""Train the variants of a sweep with several seeds, one run after the other:

python -m launch.sweep --sweep=configs/sweeps/mask_probability.py --workdir=runs/masks

The same command resumes the sweep. Several machines can run it concurrently on a shared folder. At
the end, it writes a page with the results of all finished runs, sweep.html, to the folder.
"""

import argparse
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from contextssl_jax.errors import Parser, UserError, lookup
from contextssl_jax.reports.command import report_exists
from contextssl_jax.reports.page import aligned
from contextssl_jax.run.lock import lock_holder
from contextssl_jax.storage.paths import resolve_path
from contextssl_jax.sweeps.definition import Sweep, check_seeds, load_sweep
from contextssl_jax.sweeps.page import write_page
from contextssl_jax.sweeps.runs import (
    Run,
    check_folder,
    list_runs,
    remove_failure,
    started_seeds,
    write_failure,
)
from launch.finished import is_finished
from launch.output import Console
from launch.process import Command, kill_with_parent
from launch.process_group import ProcessGroup

_TERMINATED = 128 + signal.SIGTERM  # exit status
_MAIN = (sys.executable, "-m", "contextssl_jax.main")


class Failure(NamedTuple):
    """The failure of a run."""

    description: str
    lines: list[str]  # the last lines of its stderr


def main(argv: Sequence[str]) -> int:
    """Run the command line. Return the exit status, which is 2 for a user error."""
    try:
        options = parse(argv[1:])
        sweep = load_sweep(options.sweep)
        folder = resolve_path(options.workdir, "--workdir")
        seeds = options.seeds or sweep.seeds
        all_seeds = sorted({*seeds, *started_seeds(folder, sweep)})
        all_runs = list_runs(sweep, folder, all_seeds, options.set)
        check_folder(folder, sweep, all_runs)
        selected = [
            run for run in all_runs if run.seed in seeds and _is_selected(run, sweep, options.only)
        ]
        if options.dry_run:
            _print_commands(selected)
            return 0
        status = 0
        if not options.report:
            status, stopped = run_all(selected, Console())
            if stopped:
                return status
        command = f"python -m launch.sweep --sweep={options.sweep}"
        tables = write_page(folder, sweep, all_runs, options.set, command)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # between runs
        return 130
    for table in tables:
        print(f"{table.title}\n\n{aligned(table)}\n")
    print(f"see {folder / 'sweep.html'}")
    return status


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line.

    Raises:
      UserError: a value is invalid or missing.
    """
    parser = Parser(
        prog="python -m launch.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--sweep", required=True, help="sweep file, such as configs/sweeps/ablations.py")
    add("--workdir", required=True, help="folder of the sweep; runs are in VARIANT/seed_N below it")
    add("--seeds", help="seeds to run instead of the sweep's, such as 0,1,2")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="option for all variants")
    add("--only", action="append", default=[], metavar="LABEL", help="variant to run; default: all")
    add("--dry-run", action="store_true", help="print the commands, do not start runs")
    add("--report", action="store_true", help="only write the page, do not start runs")
    options = parser.parse_args(arguments)
    for setting in options.set:
        name, equals, _ = setting.partition("=")
        if not name or not equals or name == "seed":
            raise UserError(
                f"--set: invalid setting {setting!r}. Use KEY=VALUE, such as --set=train.steps=100."
            )
    if options.seeds is not None:
        try:
            options.seeds = tuple(int(seed) for seed in options.seeds.split(","))
        except ValueError:
            pass  # rejected by check_seeds
        check_seeds("--seeds", options.seeds)
    return options


def run_all(runs: Sequence[Run], console: Console) -> tuple[int, bool]:
    """Run all unfinished runs. Skip, and retry once others are done, those that are locked.

    Args:
      runs: the runs, in their order.
      console: console for log lines.

    Returns:
      The exit status, which is 1 if a run failed, and whether a signal stopped the sweep.
    """
    failures: dict[str, Failure] = {}
    logged: dict[str, str] = {}  # the last logged lock holder of each run
    pending = [run for run in runs if not is_done(run)]
    console.log(f"{len(pending)} of {len(runs)} runs to do")
    while True:
        locked: dict[str, str] = {}
        for i, run in enumerate(pending, 1):
            if is_done(run):  # finished by another process in the meantime
                continue
            if not (holder := lock_holder(run.workdir)):
                console.log(f"{run.name} ({i} of {len(pending)})")
                failure, signals = _start(run)
                # The run fails if another process has acquired its lock first.
                holder = lock_holder(run.workdir) if failure else None
                if failure and not holder:
                    failures[run.name] = failure
                    write_failure(run, *failure)
                    console.log(f"{run.name}: failed, {failure.description}")
                if signals:
                    _log_failures(console, failures)
                    console.log("stopped. Run the same command to resume, or --report for the page")
                    return (128 + signals[-1] if signals[1:] else int(bool(failures))), True
                if not holder:
                    continue
            if holder != logged.get(run.name):
                console.log(f"{run.name}: skipped, locked by {holder}")
            locked[run.name] = logged[run.name] = holder
        if len(locked) in (0, len(pending)):  # otherwise, locked runs may be available by now
            break
        pending = [run for run in pending if run.name in locked]
    _log_failures(console, failures)
    done = len(runs) - len(failures) - len(locked)
    console.log(
        f"{done} of {len(runs)} runs are done, {len(failures)} failed, {len(locked)} locked by"
        " other processes"
    )
    return int(bool(failures)), False


def is_done(run: Run) -> bool:
    """Return True if the last step of a run is saved and its report exists."""
    return is_finished(run.workdir) and report_exists(run.workdir, run.config.train.steps)


def _start(run: Run) -> tuple[Failure | None, list[int]]:
    """Execute a run. Return its failure, or None, and the signals that were received."""
    remove_failure(run)
    group = ProcessGroup(log_failure=False)
    group.run([_command(run)])
    (process,) = group.processes
    # After a signal, the run may save and exit with 0, or be terminated before it handles signals,
    # or be killed by a second signal.
    if group.signals and (process.status in (0, _TERMINATED) or len(group.signals) > 1):
        return None, group.signals
    if process.status == 0 and is_done(run):
        return None, group.signals
    lines = [line.decode(errors="replace") for line in process.last_lines()]
    description = process.describe_exit() if process.status else "without a report"
    return Failure(description, lines), group.signals


def _log_failures(console: Console, failures: Mapping[str, Failure]) -> None:
    for name, failure in failures.items():
        console.log(f"{name}: failed, {failure.description}:")
        for line in failure.lines:
            console.log(f"  {line}")


def _command(run: Run) -> Command:
    return Command([*kill_with_parent(), *_MAIN, *run.arguments], {"PYTHONUNBUFFERED": "1"})


def _print_commands(runs: Sequence[Run]) -> None:
    for run in runs:
        print(f"# {run.name}: done" if is_done(run) else shlex.join([*_MAIN, *run.arguments]))


def _is_selected(run: Run, sweep: Sweep, labels: Sequence[str]) -> bool:
    by_label = {point.label: point for point in sweep.points}
    return not labels or run.point in [lookup(by_label, label, "--only") for label in labels]


if __name__ == "__main__":
    sys.exit(main(sys.argv))
