"""TensorBoard event files. They are optional: a write error does not stop the run."""

import logging
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from etils import epath
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import scalar

from contextssl_jax.storage.paths import is_remote

_log = logging.getLogger(__name__)


class TensorBoardWriter:
    """Writes to an event file, unbuffered. After an error it warns once and is disabled."""

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
        """See Dashboard."""
        summaries = [scalar(name, value) for name, value in values.items()]
        self._write(step, summaries, wall_time)

    def write_pictures(self, step: int, pictures: Mapping[str, bytes], wall_time: float) -> None:
        """See Dashboard."""
        summaries = []
        for name, file in pictures.items():
            width, height = struct.unpack(">II", file[16:24])  # of the header of a PNG
            image = Summary.Image(
                height=height, width=width, colorspace=4, encoded_image_string=file
            )
            summaries.append(Summary(value=[Summary.Value(tag=name, image=image)]))
        self._write(step, summaries, wall_time)

    def close(self, failed: bool) -> None:
        """See Dashboard."""
        try:
            if self._writer is not None:
                self._writer.close()
        except Exception as error:
            self._disable(error)

    def _write(self, step: int, summaries: Sequence[Summary], wall_time: float) -> None:
        if self._writer is None:
            return
        try:
            for summary in summaries:
                self._writer.write_event(Event(step=step, wall_time=wall_time, summary=summary))
            self._writer.flush()
        except Exception as error:
            self._disable(error)

    def _disable(self, error: Exception) -> None:
        self._writer = None
        _log.warning(
            "TensorBoard: cannot write %s (%s); continuing without it", self._folder, error
        )
