"""A compiler in a process of its own, whose abort ends in one line."""

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

from contextssl_jax.errors import UserError

# The last line that absl's logging writes before it aborts, such as "F1126 ... gemm.cc:7] Check
# failed: a == b", and the pass of XLA in the stack trace below it.
_FATAL = re.compile(r"^F\d{4} .*? ((\w+)\.cc:\d+)\] (.*?)\s*$", re.MULTILINE)
_PASS = re.compile(r"xla::(?:\w+::)*(\w+)::RunImpl\(\)")
_OPERATION = re.compile(r'op_name="(?:jit\(\w+\)/)?([^"]+)"')
_SHOWN = 3


def run_isolated(command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str, str]:
    """Run a command that compiles.

    Args:
      command: the command and its arguments.
      environment: variables beside this process's own; XLA_FLAGS are added to its own.

    Returns:
      The exit status, standard output and standard error.

    Raises:
      UserError: the compiler ends the process by a signal. The message names the check that
        failed, XLA's pass, and the last operations that it handled.
    """
    variables = {**os.environ, **environment}
    if "XLA_FLAGS" in environment:
        variables["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {environment['XLA_FLAGS']}"
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    if done.returncode < 0:
        raise UserError(_explain(command, variables, -done.returncode, done.stderr))
    return done.returncode, done.stdout, done.stderr


def _explain(
    command: Sequence[str], variables: Mapping[str, str], signal: int, messages: str
) -> str:
    fatal = _FATAL.search(messages)
    if fatal is None:
        last = messages.strip().splitlines()[-1:] or ["it printed nothing"]
        return f"the compiler was ended by signal {signal} ({last[0][:200]})"
    line = f"XLA's compiler aborts: {fatal[1]}: {fatal[3]}"
    if found := _PASS.search(messages, fatal.end()):
        line += f", in the pass {found[1]}"
    if operations := _last_operations(command, variables, fatal[2]):
        line += f", after the operations {', '.join(operations)}"
    return line


def _last_operations(
    command: Sequence[str], variables: Mapping[str, str], module: str
) -> list[str]:
    """Return the last operations that a source file of XLA handles before it aborts.

    The command runs again with that file's verbose log, which names instructions.
    """
    verbose = {**variables, "TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": f"{module}=10"}
    with tempfile.TemporaryFile("w+") as log:
        subprocess.run(command, env=verbose, stdout=subprocess.DEVNULL, stderr=log)
        log.seek(0)
        last: dict[str, None] = {}  # in order, each once
        for line in log:
            for operation in _OPERATION.findall(line):
                last.pop(operation, None)
                last[operation] = None
    return list(last)[-_SHOWN:]
