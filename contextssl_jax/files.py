"""Files on a disk or in a bucket: written whole, added to, and compared by their size."""

from pathlib import Path

from etils import epath

from contextssl_jax.bucket import remote


def write_whole(file: epath.Path, text: str) -> None:
    """Writes a file beside its place, then moves it there, so that no reader finds a part of it."""
    new = file.with_name(f"{file.name}.new")
    new.write_text(text)
    new.replace(file)


def append(file: epath.Path, text: str) -> None:
    """Adds text to a file; on a bucket, which knows no appending, by writing it anew."""
    if remote(file):
        file.write_text((file.read_text() if file.exists() else "") + text)
    else:
        with file.open("a") as opened:
            opened.write(text)


def has_size(path: Path, size: int) -> bool:
    """Says whether a file is there and has this many bytes."""
    return path.is_file() and path.stat().st_size == size
