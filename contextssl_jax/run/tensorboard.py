"""TensorBoard's event files: a comfort, whose failure must not stop a run."""

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
    """Writes scalars to an event file, at once, until that fails; then warns, and is silent."""

    def __init__(self, folder: epath.Path, start: int) -> None:
        """Opens a new file for steps after `start`; those of earlier files no longer count."""
        self._folder, self._writer = folder, None
        try:
            if not is_remote(folder):  # buckets know no folders
                Path(folder).mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"))
            session = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(step=start + 1, session_log=session))
            self._writer.flush()
        except Exception as error:  # an OSError, or what a bucket's library raises
            self._give_up(error)

    def write(self, step: int, values: Mapping[str, float], seconds: float) -> None:
        """Writes values of a step by name; `seconds` is the time of day, since the epoch."""
        if self._writer is None:
            return
        try:
            for name, value in values.items():
                event = Event(step=step, wall_time=seconds, summary=scalar(name, value))
                self._writer.write_event(event)
            self._writer.flush()
        except Exception as error:
            self._give_up(error)

    def close(self) -> None:
        """Closes the file."""
        try:
            if self._writer is not None:
                self._writer.close()
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._writer = None
        _log.warning("TensorBoard: cannot write %s (%s); going on without it", self._folder, error)
