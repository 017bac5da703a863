"""Compilation in a subprocess, so that an abort of the compiler becomes a one-line error."""

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

from contextssl_jax.errors import UserError

# The last log line before an abort, such as "F1126 ... gemm.cc:7] Check failed: a == b", and the
# XLA pass in the stack trace that follows it.
_FATAL = re.compile(r"^F\d{4} .*? ((\w+)\.cc:\d+)\] (.*?)\s*$", re.MULTILINE)
_PASS = re.compile(r"xla::(?:\w+::)*(\w+)::RunImpl\(\)")
_OPERATION = re.compile(r'op_name="(?:jit\(\w+\)/)?([^"]+)"')
_MAX_OPERATIONS = 3  # in the error message


def run_isolated(command: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str, str]:
    """Run a command that compiles a program.

    Args:
      command: the command and its arguments.
      environment: additional environment variables. XLA_FLAGS are appended to the existing ones.

    Returns:
      The exit status, standard output and standard error.

    Raises:
      UserError: a signal ends the process. The message names the failed check, the XLA pass, and
        the last operations that the pass processed.
    """
    variables = {**os.environ, **environment}
    if "XLA_FLAGS" in environment:
        variables["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {environment['XLA_FLAGS']}"
    result = subprocess.run(command, env=variables, capture_output=True, text=True)
    if result.returncode < 0:
        raise UserError(_explain(command, variables, -result.returncode, result.stderr))
    return result.returncode, result.stdout, result.stderr


def _explain(
    command: Sequence[str], variables: Mapping[str, str], signal: int, messages: str
) -> str:
    fatal = _FATAL.search(messages)
    if fatal is None:
        last = messages.strip().splitlines()[-1:] or ["no output"]
        return f"the compiler was killed by signal {signal} ({last[0][:200]})"
    line = f"the XLA compiler aborted: {fatal[1]}: {fatal[3]}"
    if found := _PASS.search(messages, fatal.end()):
        line += f", in pass {found[1]}"
    if operations := _last_operations(command, variables, fatal[2]):
        line += f", after operations {', '.join(operations)}"
    return line


def _last_operations(
    command: Sequence[str], variables: Mapping[str, str], module: str
) -> list[str]:
    """Return the last operations that an XLA source file logs before the abort.

    Runs the command again with verbose logging of that file, which includes instruction names.
    """
    verbose = {**variables, "TF_CPP_MIN_LOG_LEVEL": "0", "TF_CPP_VMODULE": f"{module}=10"}
    with tempfile.TemporaryFile("w+") as log:
        subprocess.run(command, env=verbose, stdout=subprocess.DEVNULL, stderr=log)
        log.seek(0)
        last: dict[str, None] = {}  # an ordered set
        for line in log:
            for operation in _OPERATION.findall(line):
                last.pop(operation, None)
                last[operation] = None
    return list(last)[-_MAX_OPERATIONS:]
