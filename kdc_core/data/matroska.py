"""What the head of a Matroska or WebM file says of the file."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

EBML, SEGMENT, INFO, TICK, DURATION = 0x1A45DFA3, 0x18538067, 0x1549A966, 0x2AD7B1, 0x4489
TRACK, VIDEO, PROJECTION = (0x1654AE6B, 0xAE), 0xE0, 0x7670
YAW, ROLL = 0x7673, 0x7675  # degrees; half a turn of yaw mirrors, then roll turns to the left
USUAL_TICK = 1_000_000  # nanoseconds
HEAD = 1 << 16  # bytes in which Info and the tracks stand, before the frames
# EXIF's orientation by quarters of a turn to the left: as it is, and mirrored before.
TURNED, MIRRORED = (1, 8, 3, 6), (2, 5, 4, 7)


class Matroska(NamedTuple):
    """What a file says.

    Attributes:
        seconds: its duration, or None.
        cut: whether the file ends before what it says it holds.
        orientation: EXIF's 1 to 8, by which frames are turned and mirrored; None where the head
            has no video.
    """

    seconds: float | None
    cut: bool
    orientation: int | None


def read_matroska(file: BinaryIO) -> Matroska | None:
    """What a Matroska or WebM file says; None of any other file."""
    head, size = file.read(HEAD), file.seek(0, 2)
    outer = list(_elements(head, 0, len(head)))
    if not outer or outer[0][0] != EBML:
        return None
    for name, start, length in outer:
        if name == SEGMENT:
            cut = length is not None and start + length > size
            return Matroska(_seconds(head[start:]), cut, _orientation(head[start:]))
    return Matroska(None, False, None)


def _seconds(segment: bytes) -> float | None:
    info = next(_inside(segment, INFO), b"")
    tick = int.from_bytes(next(_inside(info, TICK), b""), "big") or USUAL_TICK
    seconds = _real(next(_inside(info, DURATION), b""))
    return None if seconds is None else seconds * tick / 1e9


def _orientation(segment: bytes) -> int | None:
    videos = (v for track in _inside(segment, *TRACK) for v in _inside(track, VIDEO))
    video = next(videos, None)
    if video is None:
        return None
    pose = next(_inside(video, PROJECTION), b"")
    yaw, roll = (_real(next(_inside(pose, name), b"")) or 0.0 for name in (YAW, ROLL))
    if not math.isfinite(roll):
        roll = 0.0
    return (MIRRORED if abs(yaw) == 180 else TURNED)[round(roll / 90) % 4]


def _real(data: bytes) -> float | None:
    if len(data) not in (4, 8):
        return None
    number: float = struct.unpack(">f" if len(data) == 4 else ">d", data)[0]
    return number


def _inside(data: bytes, *path: int) -> Iterator[bytes]:
    """Contents of the elements of known length at a path of names."""
    for name, start, length in _elements(data, 0, len(data)):
        if name == path[0] and length is not None:
            content = data[start : start + length]
            if len(path) == 1:
                yield content
            else:
                yield from _inside(content, *path[1:])


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
