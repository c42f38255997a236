"""What the head of a Matroska or WebM file says of the file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

EBML, SEGMENT, INFO, TICK, DURATION = 0x1A45DFA3, 0x18538067, 0x1549A966, 0x2AD7B1, 0x4489
USUAL_TICK = 1_000_000  # nanoseconds
HEAD = 1 << 16  # bytes in which Info stands, before the frames


class Matroska(NamedTuple):
    """What a file says.

    Attributes:
        seconds: its duration, or None.
        cut: whether the file ends before what it says it holds.
    """

    seconds: float | None
    cut: bool


def read_matroska(file: BinaryIO) -> Matroska | None:
    """What a Matroska or WebM file says; None of any other file."""
    head, size = file.read(HEAD), file.seek(0, 2)
    outer = list(_elements(head, 0, len(head)))
    if not outer or outer[0][0] != EBML:
        return None
    for name, start, length in outer:
        if name == SEGMENT:
            cut = length is not None and start + length > size
            return Matroska(_seconds(head, start), cut)
    return Matroska(None, False)


def _seconds(head: bytes, start: int) -> float | None:
    info = next((e for e in _elements(head, start, len(head)) if e[0] == INFO), None)
    if info is None or info[2] is None:
        return None
    found = {
        name: head[begin : begin + (length or 0)]
        for name, begin, length in _elements(head, info[1], info[1] + info[2])
    }
    tick = int.from_bytes(found.get(TICK, b""), "big") or USUAL_TICK
    duration = found.get(DURATION, b"")
    if len(duration) not in (4, 8):
        return None
    seconds: float = struct.unpack(">f" if len(duration) == 4 else ">d", duration)[0]
    return seconds * tick / 1e9


def _elements(data: bytes, where: int, end: int) -> Iterator[tuple[int, int, int | None]]:
    """Name, start and length of the content of each element; length None is unknown."""
    while where < min(end, len(data)):
        width = 9 - data[where].bit_length()
        name = int.from_bytes(data[where : where + width], "big")
        where += width
        if width > 4 or where >= len(data):
            return
        width = 9 - data[where].bit_length()
        highest = (1 << 7 * width) - 1
        length = int.from_bytes(data[where : where + width], "big") & highest
        where += width
        known = length != highest
        yield name, where, length if known else None
        # The content of an element of unknown length is looked through like its own.
        where += length if known else 0
