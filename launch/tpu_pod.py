"""Run on a Cloud TPU pod slice. Every step is idempotent.

    python -m launch.tpu_pod create  --name=pod --zone=us-west4-a --type=v5litepod-16 --version=…
    python -m launch.tpu_pod install --name=pod --zone=us-west4-a
    python -m launch.tpu_pod run     --name=pod --zone=us-west4-a --config=… --workdir=gs://…

create   create the slice, or recreate it after a preemption
install  install the current commit and its dependencies on all workers
run      start contextssl_jax.main in the background on all workers
resume   create, install and run, with the flags of all three
log      follow the log of worker 0
status   print the state of the slice and of the run on each worker
stop     save and stop the run
delete   delete the slice

Other flags are passed to contextssl_jax.main.
"""

import argparse
import hashlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from contextssl_jax.errors import Parser, UserError
from launch import tpu_worker


class Pod(NamedTuple):
    """A TPU pod slice, which may not exist yet, and the options to access it."""

    name: str
    zone: str
    project: str | None
    ssh_options: Sequence[str]  # options of gcloud's ssh and scp
    dry_run: bool  # print commands instead of running them

    def gcloud(self, verb: str, *arguments: str) -> None:
        """Run a gcloud command on the slice.

        Raises:
          UserError: the command failed, after printing the reason.
        """
        self.execute(self._command(verb, self.name, *arguments))

    def execute(self, command: Sequence[str]) -> None:
        """Run a command on this machine, or print it in a dry run.

        Raises:
          UserError: the command failed.
        """
        if self.dry_run:
            print(shlex.join(command))
        elif status := subprocess.run(command).returncode:
            raise UserError(
                f"{shlex.join(command[:6])} …: failed with status {status}. See the messages above."
            )

    def state(self) -> str | None:
        """Return the state of the slice, such as READY; None if it does not exist."""
        command = self._command("describe", self.name, "--format=value(state)")
        if self.dry_run:
            print(shlex.join(command))
            return None
        result = subprocess.run(command, capture_output=True, text=True)
        if not result.returncode:
            return result.stdout.strip()
        if "NOT_FOUND" in result.stderr or "not found" in result.stderr:
            return None
        sys.stderr.write(result.stderr)
        raise UserError(f"{self.name}: cannot get its state. See the messages of gcloud above.")

    def ssh(self, workers: str, script: str) -> None:
        """Run a shell script on a worker, by number, or on "all"."""
        self.gcloud("ssh", *self._ssh_arguments(workers, script))

    def query_workers(self, script: str) -> dict[str, list[str]]:
        """Run a script of `tpu_worker` on all workers, and return its words by host name.

        Raises:
          UserError: a worker is not reachable.
        """
        command = self._command("ssh", self.name, *self._ssh_arguments("all", script))
        if self.dry_run:
            print(shlex.join(command))
            return {}
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        lines = [line.split() for line in result.stdout.splitlines() if line.startswith("worker ")]
        if result.returncode or not lines:
            raise UserError(
                f"{self.name}: cannot reach all workers. See the messages of gcloud above."
            )
        return {words[1]: words[2:] for words in sorted(lines)}

    def copy_to_workers(self, file: str) -> None:
        """Copy a local file to the home folder of all workers."""
        self.execute(self._command("scp", *self.ssh_options, file, f"{self.name}:", "--worker=all"))

    def print_result(self, text: str) -> None:
        """Print a result, except in a dry run."""
        if not self.dry_run:
            print(text)

    def print_condition(self, text: str) -> None:
        """Print, in a dry run only, the condition for the commands that follow."""
        if self.dry_run:
            print(f"# {text}:")

    def _ssh_arguments(self, workers: str, script: str) -> list[str]:
        return [*self.ssh_options, f"--worker={workers}", f"--command={script}"]

    def _command(self, verb: str, *arguments: str) -> list[str]:
        location = [f"--zone={self.zone}", *([f"--project={self.project}"] if self.project else [])]
        return ["gcloud", "compute", "tpus", "tpu-vm", verb, *location, *arguments]


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
    except KeyboardInterrupt:  # the user has stopped `log`
        return 130
    return 0


def create(pod: Pod, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Create the slice unless it exists. Recreate it after a preemption."""
    state = pod.state()
    if state == "READY":
        pod.print_result(f"{pod.name} exists")
        return
    if state == "STOPPED":
        pod.gcloud("start")
        return
    if state in ("PREEMPTED", "TERMINATED"):
        pod.print_result(f"{pod.name} is {state}: deleting and recreating it")
        pod.gcloud("delete", "--quiet")
    elif state is not None:
        raise UserError(f"{pod.name}: its state is {state}. Try again when it is READY.")
    if not options.type or not options.version:
        raise UserError(
            "--type, --version: missing. Specify both, such as --type=v5litepod-16"
            " --version=v2-alpha-tpuv5-lite."
        )
    pod.print_condition("if the slice does not exist (after a preemption, it is deleted first)")
    pod.gcloud(
        "create",
        f"--accelerator-type={options.type}",
        f"--version={options.version}",
        *options.create_option,
    )


def install(pod: Pod, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Install the current commit on all workers, in a folder of the commit."""
    commit = _commit()
    if _git("status", "--porcelain"):
        pod.print_result("uncommitted changes are not installed")
    workers = pod.query_workers(tpu_worker.is_installed(commit))
    if workers and all(state == "installed" for state, *_ in workers.values()):
        pod.print_result(f"commit {commit} is installed")
        return
    pod.print_condition("if it is not installed on all workers")
    archive = Path(_git("rev-parse", "--git-dir")) / tpu_worker.archive(commit)
    try:
        pod.execute(["git", "archive", "--format=tar.gz", f"--output={archive}", "HEAD"])
        pod.copy_to_workers(str(archive))
    finally:
        archive.unlink(missing_ok=True)
    pod.ssh("all", tpu_worker.install(commit, _git("log", "-1", "--format=%cI")))


def run(pod: Pod, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Start contextssl_jax.main on all workers, unless it is running with the same arguments."""
    for flag, value in ("--config", "configs/quickstart.py"), ("--workdir", "gs://bucket/run"):
        if not any(given.partition("=")[0] == flag for given in arguments):
            raise UserError(
                f"{flag}: missing. Specify a path that all workers can access, such as"
                f" {flag}={value}."
            )
    commit = _commit()
    mark = hashlib.sha256("\0".join([commit, *arguments]).encode()).hexdigest()[:12]
    workers = pod.query_workers(tpu_worker.STATUS)
    live = [words for words in workers.values() if words[0] == "live"]
    if live and len(live) == len(workers) and all(words[1] == mark for words in live):
        pod.print_result("already running; follow its log with: log")
        return
    if live:
        raise UserError(
            f"{pod.name}: another run is live on {len(live)} of {len(workers)} workers. Stop it"
            " first, with: stop"
        )
    pod.print_condition("if no run is live")
    pod.ssh("all", tpu_worker.start(commit, mark, arguments))
    pod.print_result("running in the background; follow its log with: log")


def resume(pod: Pod, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Create, install and run."""
    for step in (create, install, run):
        step(pod, options, arguments)


def log(pod: Pod, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Follow the log of worker 0 until Ctrl-C."""
    pod.ssh("0", tpu_worker.LOG)


def status(pod: Pod, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Print the state of the slice, and for each worker its run and the last line of its log."""
    state = pod.state()
    pod.print_result(f"{pod.name}: {state or 'does not exist'}")
    pod.print_condition("if the slice is READY")
    if state == "READY" or pod.dry_run:
        for host, words in pod.query_workers(tpu_worker.STATUS).items():
            print(f"{host}: {' '.join(words)}")


def stop(pod: Pod, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Send SIGTERM to the process of worker 0, on which all processes save and exit."""
    pod.ssh("0", tpu_worker.STOP)


def delete(pod: Pod, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Delete the slice, after the user has confirmed its name."""
    if pod.state() is None and not pod.dry_run:
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
    pod.gcloud("delete", "--quiet")


STEPS: dict[str, Callable[[Pod, argparse.Namespace, Sequence[str]], None]] = {
    "create": create,
    "install": install,
    "run": run,
    "resume": resume,
    "log": log,
    "status": status,
    "stop": stop,
    "delete": delete,
}


def _parse(step: str, given: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = Parser(add_help=False, allow_abbrev=False)
    for name in ("name", "zone", "project", "type", "version"):
        parser.add_argument(f"--{name}")
    for name in ("create-option", "ssh-option"):
        parser.add_argument(f"--{name}", action="append", default=[])
    for name in ("yes", "dry-run"):
        parser.add_argument(f"--{name}", action="store_true")
    options, rest = parser.parse_known_args(given)
    if not options.name or not options.zone:
        raise UserError("--name, --zone: missing. Specify the name and the zone of the slice.")
    if rest and step not in ("run", "resume"):
        raise UserError(f"{rest[0]}: unknown flag of {step}. Remove it.")
    return options, rest


def _commit() -> str:
    return _git("rev-parse", "--short=12", "HEAD")


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", *arguments], capture_output=True, text=True)
    if result.returncode:
        raise UserError(
            f"git: {result.stderr.strip() or 'failed'}. Run this command in a clone of the"
            " repository."
        )
    return result.stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv))
