"""Png and webp files as the chunks they consist of; animations in them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

PNG, WEBP = b"\x89PNG\r\n\x1a\n", b"RIFF"


def count_animation(data: bytes) -> int:
    """Frames that an animated png or webp says it has; 0 of what is no animation."""
    if data.startswith(PNG):
        found = (data[start : start + 4] for name, start, _ in chunks(data) if name == b"acTL")
        return int.from_bytes(next(found, b""), "big")
    if data.startswith(WEBP):
        return sum(name == b"ANMF" for name, _, _ in chunks(data))
    return 0


def without_cut_frame(data: bytes) -> bytes:
    """An animation without the frame in which its file ends: OpenCV refuses the whole webp."""
    if not data.startswith(WEBP):
        return data
    ends = [start + length + length % 2 for _, start, length in chunks(data)]
    end = max((end for end in ends if end <= len(data)), default=0)
    return data[:4] + (end - 8).to_bytes(4, "little") + data[8:end] if end else data


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name of each chunk of a png or webp, and start and length of its content.

    The last may be longer than what is left of a file that is cut.
    """
    png = data.startswith(PNG)
    where = len(PNG) if png else 12
    while where + 8 <= len(data):
        if png:
            length, name = struct.unpack_from(">I4s", data, where)
        else:
            name, length = struct.unpack_from("<4sI", data, where)
        yield name, where + 8, length
        # A png has a checksum behind; a webp's chunks begin at even places.
        where += 8 + length + (4 if png else length % 2)
