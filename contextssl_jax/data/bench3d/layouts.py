"""The files of a shard's views: compressed ArrayRecord, or a .npy array that needs no decoding."""

import os
import weakref
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import grain
import numpy as np
from array_record.python import array_record_module

_RECORD_OPTIONS = "group_size:1,zstd:1"  # records are compressed individually
_HEADER = 128  # bytes before the views of a .npy file, a multiple of 64


class Writer(Protocol):
    """Writes the views of a shard in sequence."""

    def write(self, view: bytes) -> object:
        """Append a view, the bytes of uint8 [S, S, 3]."""

    def close(self) -> object:
        """Complete the file."""


class Records(Protocol):
    """The views of several shards; threads may share it."""

    def read(self, row: int, view: np.ndarray) -> None:
        """Read a view into an array, uint8 [S, S, 3].

        Raises:
          OSError: the file cannot be read.
          RuntimeError, ValueError: it is damaged.
        """


class Layout(NamedTuple):
    """A type of file.

    Attributes:
      suffix: of the file's name.
      create: creates a file at a path, for views of a side in pixels.
      count: returns the number of views in a file.
      open: opens files of the numbers of views, for views of a side in pixels; raises OSError.
    """

    suffix: str
    create: Callable[[Path, int], Writer]
    count: Callable[[Path], int]
    open: Callable[[Sequence[Path], Sequence[int], int], Records]


class NpyWriter:
    """Writes a .npy array of views, uint8 [n, S, S, 3], whose number is known at the end."""

    def __init__(self, path: Path, side: int):
        self._file = open(path, "wb")
        self._file.seek(_HEADER)
        self._side, self._views = side, 0

    def write(self, view: bytes) -> None:
        """See Writer."""
        self._file.write(view)
        self._views += 1

    def close(self) -> None:
        """See Writer."""
        shape = self._views, self._side, self._side, 3
        with self._file as file:
            file.truncate()  # of no views, too, the file has a whole header
            file.seek(0)
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            if file.tell() != _HEADER:
                raise RuntimeError(f"its header has {file.tell()} bytes, not {_HEADER}")


class NpyRecords:
    """The views of .npy files, each read by one system call.

    Files are not mapped into memory: a page that cannot be read would end the process without a
    message, and a view that is not cached would take several reads of the disk.
    """

    def __init__(self, paths: Sequence[Path], counts: Sequence[int], side: int):
        self._starts = np.cumsum([0, *counts]).tolist()
        self._bytes = side * side * 3
        self._files = [os.open(path, os.O_RDONLY) for path in paths]
        weakref.finalize(self, _close, self._files)

    def read(self, row: int, view: np.ndarray) -> None:
        """See Records."""
        shard = bisect_right(self._starts, row) - 1
        offset = _HEADER + (row - self._starts[shard]) * self._bytes
        if os.preadv(self._files[shard], [view.data], offset) != self._bytes:
            raise RuntimeError("it ends early")


def _close(files: Sequence[int]) -> None:
    for file in files:
        os.close(file)


class ArrayRecords:
    """The views of ArrayRecord files, which are opened when they are first read."""

    def __init__(self, paths: Sequence[Path], counts: Sequence[int], side: int):
        del side
        # With the number of records given, the source opens a shard only at its first access.
        parts = [f"{path}[0:{count}]" for path, count in zip(paths, counts, strict=True)]
        self._source = grain.sources.ArrayRecordDataSource(parts)

    def read(self, row: int, view: np.ndarray) -> None:
        """See Records."""
        view[:] = np.frombuffer(self._source[row], np.uint8).reshape(view.shape)


def _create_array_record(path: Path, side: int) -> Writer:
    del side
    writer: Writer = array_record_module.ArrayRecordWriter(str(path), _RECORD_OPTIONS)
    return writer


def _count_array_records(path: Path) -> int:
    reader = array_record_module.ArrayRecordReader(str(path))
    count: int = reader.num_records()
    reader.close()
    return count


LAYOUTS = {
    "array_record": Layout(
        "array_record", _create_array_record, _count_array_records, ArrayRecords
    ),
    "npy": Layout(
        "npy",
        NpyWriter,
        lambda path: len(np.load(path, mmap_mode="r", allow_pickle=False)),
        NpyRecords,
    ),
}
DEFAULT = "array_record"
