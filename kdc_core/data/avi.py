"""How many frames of an avi are stored as nothing: the one before is shown again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

FOLDERS = (b"RIFF", b"LIST")  # chunks of chunks, behind four letters of their kind
HEADER, VIDEO = b"strh", b"vids"  # of a stream
MOST_CHUNKS = 1 << 22  # that are walked over


def count_repeats(file: BinaryIO, size: int) -> int:
    """Chunks of length 0 of the first video of an avi, up to damage; 0 of any other file.

    Heads of chunks are read alone, `MOST_CHUNKS` at most.

    Args:
        file: to be read.
        size: bytes of it that are looked at.
    """
    file.seek(0)
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"AVI ":
        return 0
    streams = repeats = 0
    video = None
    for name, length, kind in _chunks(file, size):
        if name == HEADER:
            if kind == VIDEO and video is None:
                video = b"%02d" % streams  # its chunks begin with its number
            streams += 1
        repeats += length == 0 and name[:2] == video
    return repeats


def _chunks(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, bytes]]:
    """Name and length of each chunk, and the first four bytes in it."""
    where = 0
    for _ in range(MOST_CHUNKS):
        file.seek(where)
        head = file.read(12)
        if where + 8 > size or len(head) < 8 or not head[:4].isascii():
            return
        name, length = head[:4], int.from_bytes(head[4:8], "little")
        yield name, length, head[8:]
        # Chunks begin at even places.
        where += 12 if name in FOLDERS else 8 + length + length % 2
