"""A list of configs, options and seeds, one run after the other:

python -m launch.sweep --sweep=configs/sweeps/mask_probability.py --workdir=runs/masks

The same command goes on where it stopped. Several machines may run it on one shared folder at the
same time. It ends with one page of all runs that are done: sweep.html in the folder.
"""

import argparse
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from contextssl_jax.errors import UserError, lookup
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
from launch.finished import finished
from launch.flags import Mistake, Parser
from launch.output import Console
from launch.process import Command, leash
from launch.together import Together

_ENDED = 128 + signal.SIGTERM
_MAIN = (sys.executable, "-m", "contextssl_jax.main")


class Failure(NamedTuple):
    """How a run failed."""

    fate: str
    said: list[str]  # its last lines


def main(argv: Sequence[str]) -> int:
    """Does what the command line says; returns the exit status, 2 for a mistake in it."""
    try:
        options = parse(argv[1:])
        sweep = load_sweep(options.sweep)
        folder = resolve_path(options.workdir, "--workdir")
        seeds = options.seeds or sweep.seeds
        known = sorted({*seeds, *started_seeds(folder, sweep)})
        every = list_runs(sweep, folder, known, options.set)
        check_folder(folder, sweep, every)
        chosen = [run for run in every if run.seed in seeds and _wanted(run, sweep, options.only)]
        if options.dry_run:
            _print_commands(chosen)
            return 0
        status = 0
        if not options.report:
            status, ended = run_all(chosen, Console())
            if ended:
                return status
        command = f"python -m launch.sweep --sweep={options.sweep}"
        tables = write_page(folder, sweep, every, options.set, command)
    except (Mistake, UserError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # between two runs
        return 130
    for table in tables:
        print(f"{table.title}\n\n{aligned(table)}\n")
    print(f"see {folder / 'sweep.html'}")
    return status


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Reads the command line.

    Raises:
      Mistake: a value is wrong, or one is missing.
    """
    parser = Parser(
        prog="python -m launch.sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--sweep", required=True, help="a sweep file, such as configs/sweeps/ablations.py")
    add("--workdir", required=True, help="of the sweep; runs live in POINT/seed_N below it")
    add("--seeds", help="in place of the sweep's, such as 0,1,2")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="an option of all points")
    add("--only", action="append", default=[], metavar="LABEL", help="a point to run, not all")
    add("--dry-run", action="store_true", help="print what would be run, start nothing")
    add("--report", action="store_true", help="make the page alone, start nothing")
    options = parser.parse_args(arguments)
    for setting in options.set:
        name, equals, _ = setting.partition("=")
        if not name or not equals or name == "seed":
            raise Mistake(f"--set: write KEY=VALUE, such as train.steps=100, not {setting!r}")
    if options.seeds is not None:
        try:
            options.seeds = tuple(int(seed) for seed in options.seeds.split(","))
        except ValueError:
            pass  # the check tells
        try:
            check_seeds("--seeds", options.seeds)
        except UserError as error:
            raise Mistake(str(error)) from error
    return options


def run_all(runs: Sequence[Run], console: Console) -> tuple[int, bool]:
    """Runs what is not done yet and held by nobody else, again and again until nothing is left.

    Args:
      runs: in their order.
      console: that tells what is going on.

    Returns:
      The exit status, 1 where a run failed; and whether a signal ended it.
    """
    failures: dict[str, Failure] = {}
    told: dict[str, str] = {}  # who holds what, as far as said
    left = [run for run in runs if not done(run)]
    console.say(f"{len(left)} of {len(runs)} runs are to be done")
    while True:
        held: dict[str, str] = {}
        for i, run in enumerate(left, 1):
            if done(run):  # by another, meanwhile
                continue
            if not (name := lock_holder(run.workdir)):
                console.say(f"{run.name} ({i} of {len(left)})")
                failure, signals = _start(run)
                name = lock_holder(run.workdir) if failure else None  # who was quicker
                if failure and not name:
                    failures[run.name] = failure
                    write_failure(run, *failure)
                    console.say(f"{run.name}: failed, {failure.fate}")
                if signals:
                    _tell(console, failures)
                    console.say("stopped; the same command goes on, --report makes the page")
                    return (128 + signals[-1] if signals[1:] else int(bool(failures))), True
                if not name:
                    continue
            if name != told.get(run.name):
                console.say(f"{run.name}: passed over, {name} holds it")
            held[run.name] = told[run.name] = name
        if len(held) in (0, len(left)):  # else those that were held may be free by now
            break
        left = [run for run in left if run.name in held]
    _tell(console, failures)
    finished_now = len(runs) - len(failures) - len(held)
    console.say(
        f"{finished_now} of {len(runs)} runs are done, {len(failures)} failed, {len(held)} held"
        " by others"
    )
    return int(bool(failures)), False


def done(run: Run) -> bool:
    """Says whether a run's last step is saved and its report is there."""
    return finished(run.workdir) and report_exists(run.workdir, run.config.train.steps)


def _start(run: Run) -> tuple[Failure | None, list[int]]:
    """Runs to the end; returns how it failed, if it did, and signals that came meanwhile."""
    remove_failure(run)
    together = Together(quiet=True)
    together.run([_command(run)])
    (process,) = together.processes
    asked = together.received
    # Who is asked to stop may save, or be found before it can, or be killed when asked again.
    if asked and (process.status in (0, _ENDED) or len(asked) > 1):
        return None, asked
    if process.status == 0 and done(run):
        return None, asked
    said = [line.decode(errors="replace") for line in process.last_words()]
    fate = process.fate() if process.status else "without its report"
    return Failure(fate, said), asked


def _tell(console: Console, failures: Mapping[str, Failure]) -> None:
    for name, failure in failures.items():
        console.say(f"{name}: failed, {failure.fate}:")
        for line in failure.said:
            console.say(f"  {line}")


def _command(run: Run) -> Command:
    return Command([*leash(), *_MAIN, *run.arguments], {"PYTHONUNBUFFERED": "1"})


def _print_commands(runs: Sequence[Run]) -> None:
    for run in runs:
        what = f"# {run.name}: done" if done(run) else shlex.join([*_MAIN, *run.arguments])
        print(what)


def _wanted(run: Run, sweep: Sweep, labels: Sequence[str]) -> bool:
    by_label = {point.label: point for point in sweep.points}
    return not labels or run.point in [lookup(by_label, label, "--only") for label in labels]


if __name__ == "__main__":
    sys.exit(main(sys.argv))
