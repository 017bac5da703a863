"""Runs on a TPU slice: installed, started, and resumed until they are finished."""

import argparse
import hashlib
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from contextssl_jax.errors import UserError
from launch import tpu_worker
from launch.arguments import flag_value, is_training
from launch.tpu_queue import acquire, create
from launch.tpu_slice import Pod, UnreachableError

_ATTEMPTS = 30  # consecutive ones to reach the slice
_RESTARTS = 3  # of a run that fails, in all


def install(pod: Pod, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Install a commit on all workers, in a folder of the commit."""
    commit = _commit(options)
    if _git("status", "--porcelain"):
        pod.print_result("uncommitted changes are not installed")
    workers = pod.query_workers(tpu_worker.is_installed(commit))
    if workers and all(state == "installed" for state, *_ in workers.values()):
        pod.print_result(f"commit {commit} is installed")
        return
    pod.print_condition("if it is not installed on all workers")
    archive = Path(_git("rev-parse", "--git-dir")) / tpu_worker.archive(commit)
    try:
        pod.execute(["git", "archive", "--format=tar.gz", f"--output={archive}", commit])
        pod.copy_to_workers(str(archive))
    finally:
        archive.unlink(missing_ok=True)
    pod.ssh("all", tpu_worker.install(commit, _git("log", "-1", "--format=%cI", commit)))


def run(pod: Pod, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Start contextssl_jax.main on all workers, unless it is running with the same arguments."""
    for flag, example in ("--config", "configs/quickstart.py"), ("--workdir", "gs://bucket/run"):
        if flag_value(arguments, flag) is None:
            raise UserError(
                f"{flag}: missing. Specify a path that all workers can access, such as"
                f" {flag}={example}."
            )
    commit = _commit(options)
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


def supervise(pod: Pod, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Resume the run whenever it is interrupted, until it is finished or stopped.

    Raises:
      UserError: the run has a user error, fails repeatedly, or the slice stays unreachable.
    """
    workdir = flag_value(arguments, "--workdir") or ""
    if "://" not in workdir:
        raise UserError(
            "--workdir: not in a bucket, and would be lost with the slice. Specify one, such as"
            " --workdir=gs://bucket/run."
        )
    if not is_training(arguments):
        raise UserError("--mode: supervise resumes training only. Remove it, or use run.")
    commit = _commit(options)  # the same one after an interruption, whatever HEAD is then
    options = argparse.Namespace(**vars(options) | {"commit": commit})
    outcome, attempts, restarts = "interrupted", 0, 0
    while outcome not in ("finished", "stopped"):
        try:
            if outcome == "live":
                acquire(pod, options)
            else:
                resume(pod, options, arguments)
            pod.print_condition(f"every {options.poll:g} s; if interrupted, all of this again")
            if not pod.dry_run:
                time.sleep(options.poll)
            outcome, attempts = _outcome(pod, commit, workdir), 0
            if outcome == "failed":
                restarts += 1
                if restarts > _RESTARTS:
                    raise UserError(f"{pod.name}: the run has failed again. See its log, with: log")
            if outcome in ("failed", "interrupted"):
                pod.print_result(f"{outcome}: resuming the run")
        except UnreachableError as error:
            attempts += 1
            if attempts == _ATTEMPTS:
                raise
            pod.print_result(f"{error} Trying again.")
            time.sleep(options.poll)
    pod.print_result(f"{workdir} is {outcome}")
    if options.delete_finished and outcome == "finished":
        pod.print_condition("if it is finished")
        pod.delete(queued=pod.request() is not None or pod.dry_run)


def _outcome(pod: Pod, commit: str, workdir: str) -> str:
    """Return "live", "stopped" (by the user), "interrupted", "failed" or "finished".

    Raises:
      UserError: the run has ended with a user error.
    """
    workers = pod.query_workers(tpu_worker.STATUS)
    states = [words[0] for words in workers.values()]
    for state, outcome in (
        ("live", "live"),
        ("stopped", "stopped"),
        ("interrupted", "interrupted"),
        ("none", "interrupted"),  # a new slice
    ):
        if state in states:
            return outcome
    statuses = {words[1] for words in workers.values()}
    if "2" in statuses:
        raise UserError(f"{pod.name}: the run has a user error. See its log, with: log")
    if statuses - {"0"}:
        return "failed"
    pod.print_condition("if the run has ended with status 0")
    answers = pod.query_workers(tpu_worker.is_finished(commit, workdir), workers="0")
    return answers.popitem()[1][0] if answers else "finished"


def _commit(options: argparse.Namespace) -> str:
    return _git("rev-parse", "--short=12", options.commit)


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", *arguments], capture_output=True, text=True)
    if result.returncode:
        raise UserError(
            f"git: {result.stderr.strip() or 'failed'}. Run this command in a clone of the"
            " repository."
        )
    return result.stdout.strip()
