"""Train, evaluate or plan: python -m contextssl_jax.main --config=quickstart.

Most modules are imported only when they are needed: --help and errors of the command line do not
wait for JAX.
"""

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from contextssl_jax.config import Command, parse_command_line
from contextssl_jax.errors import SharedError, UserError
from contextssl_jax.help import asks_for_help, help_text
from contextssl_jax.progress import task
from contextssl_jax.run.host_memory import reuse_freed_memory
from contextssl_jax.storage.paths import reraise_io_errors

if TYPE_CHECKING:
    from contextssl_jax.distributed.process_monitor import ProcessMonitor


def _train(command: Command) -> None:
    """Train, from the newest checkpoint if there is one; write metrics, checkpoints and reports."""
    from contextssl_jax.run.metadata import collect_metadata
    from contextssl_jax.run.step_trace import parse_steps
    from contextssl_jax.train import train

    metadata = partial(collect_metadata, command.config, command.argv, command.deterministic)
    train(command.config, command.workdir, metadata, parse_steps(command.profile))


def _evaluate(command: Command) -> None:
    """Write the report of the newest checkpoint, or of --step."""
    from contextssl_jax.reports.command import evaluate_checkpoint

    evaluate_checkpoint(command.config, command.workdir, command.step)


def _plan(command: Command) -> None:
    """Estimate the memory, operations and time of a run, without running it."""
    from contextssl_jax.planning.plan import plan

    plan(command)


def _embed(argv: Sequence[str]) -> None:
    """Embed all images of a folder by a trained model."""
    from contextssl_jax.interface.embed_command import embed_folder

    embed_folder(argv)


def _export(argv: Sequence[str]) -> None:
    """Write a trained model as programs that run without this package."""
    from contextssl_jax.interface.export_command import export_folder

    export_folder(argv)


MODES: dict[str, Callable[[Command], None]] = {
    "train": _train,
    "eval": _evaluate,
    "plan": _plan,
}
# Modes with arguments of their own instead of a config.
TOOLS: dict[str, Callable[[Sequence[str]], None]] = {
    "embed": _embed,
    "export": _export,
}
_USER_ERROR, _FAILURE, _INTERRUPTED = 2, 1, 130  # exit statuses
_MONITOR_DELAY = 5  # seconds within which the process monitor detects a lost process


def main(argv: Sequence[str]) -> int:
    """Run the command line.

    Returns:
      The exit status: 0 for success, 2 for a user error, 130 after Ctrl-C outside of training.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    logging.getLogger("contextssl_jax").setLevel(logging.INFO)
    for library in ("absl", "asyncio"):  # the errors that they log are raised as well
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        mode, rest = _split_mode(argv[1:])
        if mode in TOOLS:
            _use_compilation_cache(True)
            TOOLS[mode](rest)
            return 0
        if asks_for_help(argv):
            print(help_text(argv, {**MODES, **TOOLS}), flush=True)
            return 0
        command = parse_command_line(argv, (*MODES, *TOOLS))
        if command.step is not None and command.mode != "eval":
            raise UserError(
                "--step: only valid with --mode=eval. Remove it; training resumes from the newest"
                " checkpoint."
            )
        plan_flags = command.devices, command.utilisation, command.out, command.chip
        if command.mode != "plan" and any(plan_flags):
            raise UserError(
                "--devices, --utilisation, --out, --chip: only valid with --mode=plan. Add"
                " --mode=plan or remove them."
            )
        if command.deterministic:  # before JAX initializes its devices
            flags = os.environ.get("XLA_FLAGS", "")
            os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
        from contextssl_jax.distributed.processes import join_processes

        _use_compilation_cache(command.compilation_cache)
        monitor = join_processes() if command.mode != "plan" else None
        if monitor is not None:
            _run_distributed(monitor, command)
        _run(command)
        sys.stdout.flush()
    except BrokenPipeError:  # of stdout, whose reader, such as head, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return _USER_ERROR
    except KeyboardInterrupt:  # outside the training loop, which saves
        print("stopped", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _use_compilation_cache(enabled: bool) -> None:
    from contextssl_jax.run.compilation_cache import enable_compilation_cache

    enable_compilation_cache(enabled, os.environ)


def _split_mode(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the value of --mode, which may be the next argument, and the other arguments."""
    for i, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in ("--mode", "-mode"):
            after = i + 1 if equals else i + 2
            value = value if equals else "".join(arguments[i + 1 : after])
            return value, [*arguments[:i], *arguments[after:]]
    return None, list(arguments)


def _run(command: Command) -> None:
    with reraise_io_errors(command.workdir), task("working"):
        MODES[command.mode](command)


def _unraisable_hook(unraisable: Any) -> None:
    """Print an unraisable exception, except those that follow a failed checkpoint read or write.

    Such a failure, which is raised and printed, leaves callbacks to a closed event loop.
    """
    error = unraisable.exc_value
    if not (isinstance(error, RuntimeError) and "loop is closed" in str(error)):
        sys.__unraisablehook__(unraisable)


def _run_distributed(monitor: "ProcessMonitor", command: Command) -> None:
    """Run the command as one of several processes, report its end to the others, and exit."""
    import jax

    index = jax.process_index()
    if index:
        logging.getLogger("contextssl_jax").setLevel(logging.WARNING)
    status, failure = 0, None
    try:
        _run(command)
    except SharedError as error:
        status = _USER_ERROR
        if not index:
            print(f"error: {error}", file=sys.stderr)
    except UserError as error:
        status, failure = _USER_ERROR, f"process {index} ended: {error}"
        print(f"error: {error}", file=sys.stderr)
    except BaseException as error:
        if isinstance(error, jax.errors.JaxRuntimeError):
            time.sleep(_MONITOR_DELAY)  # a lost process is the likely cause; the monitor names it
        status, failure = _FAILURE, f"process {index} failed: {type(error).__name__}: {error}"
        traceback.print_exc()
    monitor.shutdown(failure)
    if failure is None:
        jax.distributed.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # a regular exit waits for the other processes


if __name__ == "__main__":
    sys.unraisablehook = _unraisable_hook
    reuse_freed_memory(os.environ)  # before JAX starts its threads
    sys.exit(main(sys.argv))
