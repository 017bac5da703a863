"""Run on a Cloud TPU slice. Every step is idempotent.

    python -m launch.tpu_pod create  --name=pod --zone=us-east5-b --type=v6e-8 --spot
    python -m launch.tpu_pod install --name=pod --zone=us-east5-b
    python -m launch.tpu_pod run     --name=pod --zone=us-east5-b --config=… --workdir=gs://…

create     request the slice, or request it again after a preemption, and wait for capacity
install    install a commit, by default the current one, and its dependencies on all workers
run        start contextssl_jax.main in the background on all workers
resume     create, install and run, with the flags of all three
supervise  resume, and resume again after each interruption, until the run is finished
log        follow the log of worker 0
status     print the state of the slice and of the run on each worker
stop       save and stop the run
delete     delete the slice and its request

--spot, --reserved       kind of capacity; on demand without them
--valid-until-duration=  how long to wait for capacity, such as 6h; without a limit by default
--version=               runtime version; by default that of --type
--create-option=         another option of gcloud for the request; can be repeated
--commit=HEAD            commit to install and run
--delete-finished        with supervise: delete the slice when the run is finished
--poll=60                seconds between two looks at the slice
--dry-run                print the commands instead of running them

Other flags are passed to contextssl_jax.main.
"""

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence

from contextssl_jax.errors import Parser, UserError
from launch import tpu_worker
from launch.tpu_queue import create
from launch.tpu_run import install, resume, run, supervise
from launch.tpu_slice import Pod


def main(argv: Sequence[str]) -> int:
    """Run a step. Return the exit status, which is 2 for a user error."""
    try:
        if len(argv) > 1 and argv[1] in ("-h", "--help"):
            print(__doc__.strip())
            return 0
        if len(argv) < 2 or argv[1] not in STEPS:
            raise UserError(f"step: missing or unknown. Specify one of {', '.join(STEPS)}.")
        options, arguments = _parse(argv[1], argv[2:])
        if not options.dry_run and not shutil.which("gcloud"):
            raise UserError("gcloud: not installed. Install the Google Cloud CLI.")
        pod = Pod(options.name, options.zone, options.project, options.ssh_option, options.dry_run)
        STEPS[argv[1]](pod, options, arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # ends a wait or `log`, and no run
        return 130
    return 0


def log(pod: Pod, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Follow the log of worker 0 until Ctrl-C."""
    pod.ssh("0", tpu_worker.LOG)


def status(pod: Pod, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Print the state of the slice or its request, and for each worker its run and log's end."""
    state = pod.state()
    pod.print_condition("if the slice is READY; else its request is described")
    if state == "READY" or pod.dry_run:
        pod.print_result(f"{pod.name}: {state}")
        for host, words in pod.query_workers(tpu_worker.STATUS).items():
            print(f"{host}: {' '.join(words)}")
    else:
        request = pod.request()
        found = [state or "no slice", f"request {request.state}" if request else "no request"]
        pod.print_result(f"{pod.name}: {', '.join(found)}")


def stop(pod: Pod, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Send SIGTERM to the process of worker 0, on which all processes save and exit."""
    pod.ssh("0", tpu_worker.STOP)


def delete(pod: Pod, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Delete the slice and its request, after the user has confirmed its name."""
    state, request = pod.state(), pod.request()
    if state is None and request is None and not pod.dry_run:
        pod.print_result(f"{pod.name} does not exist")
        return
    if not options.yes and not pod.dry_run:
        question = f"Delete {pod.name} in {pod.zone} with all data on its disks? Type its name: "
        print(question, end="", flush=True)
        if sys.stdin.readline().strip() != pod.name:
            raise UserError(
                f"{pod.name}: not deleted, since its name was not confirmed. Use --yes to delete"
                " without confirmation."
            )
    pod.print_condition("if it exists" + ("" if options.yes else " and its name is confirmed"))
    pod.delete(queued=request is not None or pod.dry_run)


STEPS: dict[str, Callable[[Pod, argparse.Namespace, Sequence[str]], None]] = {
    "create": create,
    "install": install,
    "run": run,
    "resume": resume,
    "supervise": supervise,
    "log": log,
    "status": status,
    "stop": stop,
    "delete": delete,
}


def _parse(step: str, given: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = Parser(add_help=False, allow_abbrev=False)
    for name in ("name", "zone", "project", "type", "version", "valid-until-duration"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--commit", default="HEAD")
    for name in ("create-option", "ssh-option"):
        parser.add_argument(f"--{name}", action="append", default=[])
    for name in ("yes", "dry-run", "delete-finished"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--poll", type=float, default=60.0)
    capacity = parser.add_mutually_exclusive_group()
    for name in ("spot", "reserved"):
        capacity.add_argument(f"--{name}", action="store_true")
    options, rest = parser.parse_known_args(given)
    if not options.name or not options.zone:
        raise UserError("--name, --zone: missing. Specify the name and the zone of the slice.")
    if not options.poll > 0:
        raise UserError("--poll: not positive. Specify seconds, such as --poll=60.")
    if rest and step not in ("run", "resume", "supervise"):
        raise UserError(f"{rest[0]}: unknown flag of {step}. Remove it.")
    return options, rest


if __name__ == "__main__":
    sys.exit(main(sys.argv))
