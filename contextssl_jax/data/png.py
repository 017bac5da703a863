"""Decoding of many small PNGs at once; one by one, PIL takes most of the time to open them."""

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

_HEADER = slice(0, 33)  # of a file: the signature and the chunk IHDR
_SIZE = struct.Struct(">II")  # width and height, at byte 16
_RGB = bytes((8, 2, 0, 0, 0))  # 8 bits, RGB, not interlaced, at byte 24
_CHUNK = struct.Struct(">I4s")  # length of the data, and type; a CRC follows the data


def decode_pngs(files: Sequence[bytes]) -> np.ndarray | None:
    """Decode 8-bit RGB PNGs of one size.

    All scanlines become one tall image, which PIL decodes in one call. A line of zeros precedes
    each file's, since the filters of its first line refer to the line above.

    Returns:
      uint8 [N, H, W, 3]; None if a file is of another kind or size, has further chunks, or is
      damaged.
    """
    header = files[0][_HEADER]
    if header[24:29] != _RGB or header[29:] != zlib.crc32(header[12:29]).to_bytes(4):
        return None
    width, height = _SIZE.unpack_from(header, 16)
    line = 1 + 3 * width  # bytes of a scanline: filter, then pixels
    try:
        scanlines = [
            zlib.decompress(_image_data(file)) if file[_HEADER] == header else b"" for file in files
        ]
        if any(len(lines) != height * line for lines in scanlines):
            return None
        zeros = bytes(line)
        stream = zlib.compress(zeros + zeros.join(scanlines), level=0)
        size = (width, len(files) * (1 + height))
        image = Image.frombytes("RGB", size, stream, "zip", "RGB")
    except (ValueError, OSError, struct.error, zlib.error):
        return None
    return np.asarray(image).reshape(len(files), 1 + height, width, 3)[:, 1:]


def _image_data(file: bytes) -> bytes:
    """Return the compressed scanlines; raises struct.error or ValueError for other files."""
    parts: list[bytes] = []
    start = _HEADER.stop
    while True:
        length, kind = _CHUNK.unpack_from(file, start)
        if kind == b"IEND":
            return b"".join(parts)
        if kind != b"IDAT":
            raise ValueError(f"chunk {kind!r}")
        start += _CHUNK.size
        parts.append(file[start : start + length])
        start += length + 4
