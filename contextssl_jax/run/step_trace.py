"""A profiler's trace of some training steps, which TensorBoard, XProf and Perfetto display."""

import logging
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import jax
from etils import epath

from contextssl_jax.errors import UserError
from contextssl_jax.storage.paths import is_remote

_log = logging.getLogger(__name__)


def parse_steps(text: str | None) -> range:
    """Parse "START:STOP", the first and the last step of a trace, to a range; None is empty.

    Raises:
      UserError: the text is not two steps, or STOP is below START.
    """
    if text is None:
        return range(0)
    start, _, stop = text.partition(":")
    if not (start.isdecimal() and stop.isdecimal() and 1 <= int(start) <= int(stop)):
        raise UserError(
            f"--profile: must be the first and the last step to trace, such as 10:15, not {text!r}."
        )
    return range(int(start), int(stop) + 1)


class StepTrace:
    """Writes a trace of some steps to `<workdir>/profile/`. An empty range writes nothing."""

    def __init__(self, workdir: epath.Path, steps: range) -> None:
        """Prepare the trace.

        Args:
          workdir: the workdir of the run.
          steps: the steps to trace, numbered from 1.

        Raises:
          UserError: the workdir is in a bucket, where the profiler cannot write.
        """
        if steps and is_remote(workdir):
            raise UserError(f"--profile: cannot write to {workdir}. Use a local --workdir.")
        self._folder, self._steps = workdir / "profile", steps
        self._stack = ExitStack()

    def __enter__(self) -> "StepTrace":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def step(self, step: int) -> jax.profiler.StepTraceAnnotation:
        """Return a context for the dispatch of a step, and start the trace at its first step."""
        if self._steps and step == self._steps[0]:
            self._stack.enter_context(jax.profiler.trace(str(self._folder)))
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def finish(self, step: int, outputs: Any) -> None:
        """Wait for the outputs of the trace's last step, and write the trace."""
        if self._steps and step == self._steps[-1]:
            jax.block_until_ready(outputs)
            self._stack.close()
            _log.info("trace of steps %d to %d: %s", self._steps[0], step, self._folder)
