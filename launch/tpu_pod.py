"""A run on a Cloud TPU pod slice, step by step; every step does only what is still to be done.

    python -m launch.tpu_pod create  --name=pod --zone=us-west4-a --type=v5litepod-16 --version=…
    python -m launch.tpu_pod install --name=pod --zone=us-west4-a
    python -m launch.tpu_pod run     --name=pod --zone=us-west4-a --config=… --workdir=gs://…

create   makes the slice; anew if it was preempted
install  takes the current commit, and what it needs, to all workers
run      starts contextssl_jax.main on all workers, and leaves it running there
resume   create, install and run, with the flags of all three
log      follows worker 0's log
status   tells what each worker does
stop     has the run save and end
delete   deletes the slice

Flags that are not listed here go to contextssl_jax.main.
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

from launch import tpu_worker
from launch.flags import Mistake, Parser


class Pod(NamedTuple):
    """A TPU pod slice that need not exist yet, and how it is reached."""

    name: str
    zone: str
    project: str | None
    ssh_options: Sequence[str]  # of gcloud's ssh and scp
    dry_run: bool  # print commands, run none

    def gcloud(self, verb: str, *arguments: str) -> None:
        """Has gcloud do something with the slice.

        Raises:
          Mistake: it failed; it has said why.
        """
        self.call(self._command(verb, self.name, *arguments))

    def call(self, command: Sequence[str]) -> None:
        """Runs a command of this machine, or prints it.

        Raises:
          Mistake: it failed.
        """
        if self.dry_run:
            print(shlex.join(command))
        elif status := subprocess.run(command).returncode:
            raise Mistake(f"{shlex.join(command[:6])} …: failed with status {status}, see above")

    def state(self) -> str | None:
        """Returns what state the slice is in, such as READY; None if it does not exist."""
        command = self._command("describe", self.name, "--format=value(state)")
        if self.dry_run:
            print(shlex.join(command))
            return None
        answer = subprocess.run(command, capture_output=True, text=True)
        if not answer.returncode:
            return answer.stdout.strip()
        if "NOT_FOUND" in answer.stderr or "not found" in answer.stderr:
            return None
        sys.stderr.write(answer.stderr)
        raise Mistake(f"{self.name}: gcloud cannot tell its state, see above")

    def on(self, workers: str, script: str) -> None:
        """Runs a shell script on a worker, by number, or on "all"."""
        self.gcloud("ssh", *self._on(workers, script))

    def ask(self, script: str) -> dict[str, list[str]]:
        """Returns the words that a script of `tpu_worker` says of each worker, by its host's name.

        Raises:
          Mistake: not all workers can be reached.
        """
        command = self._command("ssh", self.name, *self._on("all", script))
        if self.dry_run:
            print(shlex.join(command))
            return {}
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        told = [line.split() for line in answer.stdout.splitlines() if line.startswith("worker ")]
        if answer.returncode or not told:
            raise Mistake(f"{self.name}: cannot reach all workers, see above")
        return {words[1]: words[2:] for words in sorted(told)}

    def copy(self, file: str) -> None:
        """Copies a file of this machine to the home folder of all workers."""
        self.call(self._command("scp", *self.ssh_options, file, f"{self.name}:", "--worker=all"))

    def note(self, text: str) -> None:
        """Tells the user what was found or done, which a dry run does not know."""
        if not self.dry_run:
            print(text)

    def condition(self, text: str) -> None:
        """Says in a dry run when the commands that follow would be run."""
        if self.dry_run:
            print(f"# {text}:")

    def _on(self, workers: str, script: str) -> list[str]:
        return [*self.ssh_options, f"--worker={workers}", f"--command={script}"]

    def _command(self, verb: str, *arguments: str) -> list[str]:
        where = [f"--zone={self.zone}", *([f"--project={self.project}"] if self.project else [])]
        return ["gcloud", "compute", "tpus", "tpu-vm", verb, *where, *arguments]


def main(argv: Sequence[str]) -> int:
    """Does the step that the command line names; returns the status, 2 for a mistake in it."""
    try:
        if len(argv) > 1 and argv[1] in ("-h", "--help"):
            print(__doc__.strip())
            return 0
        if len(argv) < 2 or argv[1] not in STEPS:
            raise Mistake(f"name a step first: {', '.join(STEPS)}")
        options, arguments = _parse(argv[1], argv[2:])
        if not options.dry_run and not shutil.which("gcloud"):
            raise Mistake("gcloud: is not here; install the Google Cloud CLI")
        pod = Pod(options.name, options.zone, options.project, options.ssh_option, options.dry_run)
        STEPS[argv[1]](pod, options, arguments)
    except Mistake as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # how `log` ends
        return 130
    return 0


def create(pod: Pod, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Makes the slice unless it is there; one that was preempted is deleted and made anew."""
    state = pod.state()
    if state == "READY":
        pod.note(f"{pod.name} is there")
        return
    if state == "STOPPED":
        pod.gcloud("start")
        return
    if state in ("PREEMPTED", "TERMINATED"):
        pod.note(f"{pod.name} is {state}: it is deleted and made anew")
        pod.gcloud("delete", "--quiet")
    elif state is not None:
        raise Mistake(f"{pod.name}: is {state}; try again when it is READY")
    if not options.type or not options.version:
        raise Mistake("--type, --version: name both, such as v5litepod-16, v2-alpha-tpuv5-lite")
    pod.condition("where it is not there (one that was preempted is deleted before)")
    pod.gcloud(
        "create",
        f"--accelerator-type={options.type}",
        f"--version={options.version}",
        *options.create_option,
    )


def install(pod: Pod, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Takes the current commit to all workers, each commit to a folder of its own."""
    commit = _commit()
    if _git("status", "--porcelain"):
        pod.note("uncommitted changes stay here")
    workers = pod.ask(tpu_worker.is_installed(commit))
    if workers and all(state == "installed" for state, *_ in workers.values()):
        pod.note(f"commit {commit} is installed")
        return
    pod.condition("where a worker lacks it")
    archive = Path(_git("rev-parse", "--git-dir")) / tpu_worker.archive(commit)
    try:
        pod.call(["git", "archive", "--format=tar.gz", f"--output={archive}", "HEAD"])
        pod.copy(str(archive))
    finally:
        archive.unlink(missing_ok=True)
    pod.on("all", tpu_worker.install(commit, _git("log", "-1", "--format=%cI")))


def run(pod: Pod, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Starts main on all workers, unless it runs there with the same arguments."""
    for flag, value in ("--config", "configs/quickstart.py"), ("--workdir", "gs://bucket/run"):
        if not any(given.partition("=")[0] == flag for given in arguments):
            raise Mistake(f"{flag}: name one that all workers have, such as {flag}={value}")
    commit = _commit()
    mark = hashlib.sha256("\0".join([commit, *arguments]).encode()).hexdigest()[:12]
    workers = pod.ask(tpu_worker.STATUS)
    live = [words for words in workers.values() if words[0] == "live"]
    if live and len(live) == len(workers) and all(words[1] == mark for words in live):
        pod.note("it runs already; follow it with: log")
        return
    if live:
        raise Mistake(
            f"{pod.name}: another run is live on {len(live)} of {len(workers)} workers;"
            " end it first, with: stop"
        )
    pod.condition("where no run is live")
    pod.on("all", tpu_worker.start(commit, mark, arguments))
    pod.note("it runs, whether or not you stay; follow it with: log")


def resume(pod: Pod, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Does whichever of create, install and run is to be done."""
    for step in (create, install, run):
        step(pod, options, arguments)


def log(pod: Pod, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Follows worker 0's log until Ctrl-C."""
    pod.on("0", tpu_worker.LOG)


def status(pod: Pod, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Tells the slice's state, and for each worker its run and the last line of its log."""
    state = pod.state()
    pod.note(f"{pod.name}: {state or 'is not there'}")
    pod.condition("where it is READY")
    if state == "READY" or pod.dry_run:
        for host, words in pod.ask(tpu_worker.STATUS).items():
            print(f"{host}: {' '.join(words)}")


def stop(pod: Pod, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Asks worker 0's process to save and end; all others do so with it."""
    pod.on("0", tpu_worker.STOP)


def delete(pod: Pod, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Deletes the slice, after the user has typed its name."""
    if pod.state() is None and not pod.dry_run:
        pod.note(f"{pod.name} is not there")
        return
    if not options.yes and not pod.dry_run:
        question = f"Delete {pod.name} in {pod.zone} and all that is on its disks? Type its name: "
        print(question, end="", flush=True)
        if sys.stdin.readline().strip() != pod.name:
            raise Mistake("not deleted; to delete without being asked, add --yes")
    pod.condition("where it is there" + ("" if options.yes else ", and its name was typed"))
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
    parser = Parser(add_help=False)
    for name in ("name", "zone", "project", "type", "version"):
        parser.add_argument(f"--{name}")
    for name in ("create-option", "ssh-option"):
        parser.add_argument(f"--{name}", action="append", default=[])
    for name in ("yes", "dry-run"):
        parser.add_argument(f"--{name}", action="store_true")
    options, rest = parser.parse_known_args(given)
    if not options.name or not options.zone:
        raise Mistake("--name, --zone: name the slice and its zone")
    if rest and step not in ("run", "resume"):
        raise Mistake(f"{rest[0]}: {step} has no such flag")
    return options, rest


def _commit() -> str:
    return _git("rev-parse", "--short=12", "HEAD")


def _git(*arguments: str) -> str:
    answer = subprocess.run(["git", *arguments], capture_output=True, text=True)
    if answer.returncode:
        raise Mistake(f"git: {answer.stderr.strip() or 'failed'}; run this in a clone")
    return answer.stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv))
