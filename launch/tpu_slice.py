"""A Cloud TPU slice and its queued resource, which share a name, accessed with gcloud."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from contextssl_jax.errors import UserError


class UnreachableError(UserError):
    """The service or a worker does not answer. A later attempt may succeed."""


class Request(NamedTuple):
    """A queued resource, which is the request for a slice.

    Attributes:
      state: such as WAITING_FOR_RESOURCES, ACTIVE or SUSPENDED.
      reason: message of the service; empty unless the state is FAILED.
    """

    state: str
    reason: str


class Pod(NamedTuple):
    """A TPU slice, which may not exist yet, and the options to access it."""

    name: str
    zone: str
    project: str | None
    ssh_options: Sequence[str]  # options of gcloud's ssh and scp
    dry_run: bool  # print commands instead of running them

    def start(self) -> None:
        """Start the slice, which is stopped."""
        self.execute(self._command("tpu-vm", "start", self.name))

    def create(self, arguments: Sequence[str]) -> None:
        """Create a queued resource for the slice, with gcloud's arguments."""
        node = f"--node-id={self.name}"
        self.execute(self._command("queued-resources", "create", self.name, node, *arguments))

    def delete(self, queued: bool) -> None:
        """Delete the slice, with its queued resource if it has one."""
        if queued:
            command = self._command("queued-resources", "delete", self.name, "--force", "--quiet")
        else:
            command = self._command("tpu-vm", "delete", self.name, "--quiet")
        self.execute(command)

    def execute(self, command: Sequence[str], error: type[UserError] = UserError) -> None:
        """Run a command on this machine, or print it in a dry run.

        Raises:
          UserError: the command failed, after printing the reason; of the class `error`.
        """
        if self.dry_run:
            print(shlex.join(command))
        elif status := subprocess.run(command).returncode:
            raise error(
                f"{shlex.join(command[:6])} …: failed with status {status}. See the messages above."
            )

    def state(self) -> str | None:
        """Return the state of the slice, such as READY; None if it does not exist.

        Raises:
          UnreachableError: the state is unknown.
        """
        return self._describe("tpu-vm", "state")

    def request(self) -> Request | None:
        """Return the queued resource; None if it does not exist.

        Raises:
          UnreachableError: its state is unknown.
        """
        fields = "state.state,state.failedData.error.message"  # separated by a tab
        text = self._describe("queued-resources", fields)
        return None if text is None else Request(*text.partition("\t")[::2])

    def ssh(self, workers: str, script: str) -> None:
        """Run a shell script on a worker, by number, or on "all".

        Raises:
          UnreachableError: a worker is not reachable, or the script failed.
        """
        self.execute(self._ssh(workers, script), UnreachableError)

    def query_workers(self, script: str, workers: str = "all") -> dict[str, list[str]]:
        """Run a script of `tpu_worker` on workers, and return its words by host name.

        Raises:
          UnreachableError: a worker is not reachable.
        """
        command = self._ssh(workers, script)
        if self.dry_run:
            print(shlex.join(command))
            return {}
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        lines = [line.split() for line in result.stdout.splitlines() if line.startswith("worker ")]
        if result.returncode or not lines:
            raise UnreachableError(
                f"{self.name}: cannot reach all workers. See the messages of gcloud above."
            )
        return {words[1]: words[2:] for words in sorted(lines)}

    def copy_to_workers(self, file: str) -> None:
        """Copy a local file to the home folder of all workers.

        Raises:
          UnreachableError: a worker is not reachable.
        """
        arguments = [*self.ssh_options, file, f"{self.name}:", "--worker=all"]
        self.execute(self._command("tpu-vm", "scp", *arguments), UnreachableError)

    def print_result(self, text: str) -> None:
        """Print a result, except in a dry run."""
        if not self.dry_run:
            print(text, flush=True)

    def print_condition(self, text: str) -> None:
        """Print, in a dry run only, the condition for the commands that follow."""
        if self.dry_run:
            print(f"# {text}:")

    def _ssh(self, workers: str, script: str) -> list[str]:
        arguments = [*self.ssh_options, f"--worker={workers}", f"--command={script}"]
        return self._command("tpu-vm", "ssh", self.name, *arguments)

    def _describe(self, group: str, fields: str) -> str | None:
        """Return fields of a resource; None if it does not exist, and in a dry run."""
        command = self._command(group, "describe", self.name, f"--format=value({fields})")
        if self.dry_run:
            print(shlex.join(command))
            return None
        result = subprocess.run(command, capture_output=True, text=True)
        if not result.returncode:
            return result.stdout.strip()
        if "NOT_FOUND" in result.stderr or "not found" in result.stderr:
            return None
        sys.stderr.write(result.stderr)
        raise UnreachableError(
            f"{self.name}: cannot get its state. See the messages of gcloud above."
        )

    def _command(self, group: str, verb: str, *arguments: str) -> list[str]:
        location = [f"--zone={self.zone}", *([f"--project={self.project}"] if self.project else [])]
        return ["gcloud", "compute", "tpus", group, verb, *location, *arguments]
