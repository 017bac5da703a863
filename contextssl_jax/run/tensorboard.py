"""TensorBoard event files. They are optional: a write error does not stop the run."""

import logging
from collections.abc import Mapping
from pathlib import Path

from etils import epath
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from contextssl_jax.storage.paths import is_remote

_log = logging.getLogger(__name__)


class TensorBoardWriter:
    """Writes scalars to an event file, unbuffered. After an error it warns once and is disabled."""

    def __init__(self, folder: epath.Path, start: int) -> None:
        """Open a new event file. TensorBoard ignores steps after `start` in earlier files."""
        self._folder, self._writer = folder, None
        try:
            if not is_remote(folder):  # object storage has no folders
                Path(folder).mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"))
            session = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(step=start + 1, session_log=session))
            self._writer.flush()
        except Exception as error:  # OSError, or an error of the storage library
            self._disable(error)

    def write(self, step: int, values: Mapping[str, float], wall_time: float) -> None:
        """Write the scalars of a step.

        Args:
          step: the step.
          values: scalars by name.
          wall_time: seconds since the epoch.
        """
        if self._writer is None:
            return
        try:
            for name, value in values.items():
                event = Event(step=step, wall_time=wall_time, summary=scalar(name, value))
                self._writer.write_event(event)
            self._writer.flush()
        except Exception as error:
            self._disable(error)

    def close(self) -> None:
        """Close the file."""
        try:
            if self._writer is not None:
                self._writer.close()
        except Exception as error:
            self._disable(error)

    def _disable(self, error: Exception) -> None:
        self._writer = None
        _log.warning(
            "TensorBoard: cannot write %s (%s); continuing without it", self._folder, error
        )
