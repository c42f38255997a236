"""What the head of a Matroska or WebM file says of the file, and how many frames are in it."""

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
NUMBER, CODEC, INTERLACED = 0xD7, 0x86, 0x9A  # of a track
CLUSTER, GROUP, BLOCKS = 0x1F43B675, 0xA0, (0xA1, 0xA3)
# What else stands in a segment, a cluster or a group of it; any other name is damage.
BESIDE = frozenset(
    (0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367)
    + (0xE7, 0x5854, 0xA7, 0xAB, 0xEC, 0xBF)
    + (0x75A1, 0x9B, 0xFA, 0xFB, 0xFD, 0xA4, 0x75A2, 0x8E, 0xC8)
)
MOST_ELEMENTS = 1 << 22  # that are walked over
HEADS = 24  # bytes: those of an element and of a block, and the first of its content
INVISIBLE, LACED = 0x08, 0x06  # flags of a block
VP8_SHOWN = 0x10  # bit of the first byte of a frame of VP8
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


def count_frames(file: BinaryIO, size: int) -> int | None:
    """Frames to be shown that the video of a Matroska or WebM file holds.

    Heads of blocks are read alone. A recording that ends within a block has those before.

    Args:
        file: to be read.
        size: bytes of it that are looked at.

    Returns:
        None of other files, of a damaged one, of several videos, of interlaced video, whose
        blocks may be half frames, and of more than `MOST_ELEMENTS`.
    """
    file.seek(0)
    head = file.read(min(HEAD, size))
    for name, start, length in _elements(head, 0, len(head)):
        if name == SEGMENT:
            videos = [t for t in _inside(head[start:], *TRACK) for _ in _inside(t, VIDEO)]
            if len(videos) != 1 or _whole(videos[0], VIDEO, INTERLACED) == 1:
                return None
            end = size if length is None else min(size, start + length)
            return _count(file, start, end, length is None, videos[0])
    return None


def _count(file: BinaryIO, where: int, end: int, unfinished: bool, track: bytes) -> int | None:
    """Frames of a track between two places; None where something is damaged.

    Args:
        unfinished: whether the last element may end behind.
    """
    number = _whole(track, NUMBER)
    vp8 = next(_inside(track, CODEC), b"").rstrip(b"\0") == b"V_VP8"
    frames = cluster = 0  # cluster: where the one under way ends, if it says so
    for _ in range(MOST_ELEMENTS):
        if where >= end:
            return frames
        file.seek(where)
        head = file.read(HEADS)
        name, start, length = next(_elements(head, 0, len(head)), (0, 0, None))
        if name in (CLUSTER, GROUP):  # looked through, as those of unknown length have to be
            where += start
            if name == CLUSTER:
                cluster = where + (length or 0)
            continue
        if length is None or name not in BESIDE and name not in BLOCKS:
            return None
        behind = where + start + length
        if where < cluster < behind:
            return None
        if behind > end:
            return frames if unfinished else None
        if name in BLOCKS:
            frames += _shown(head[start : start + length], number, vp8)
        where = behind
    return None


def _shown(block: bytes, number: int, vp8: bool) -> int:
    """Frames to be shown of the track of a number in a block, of which the beginning is given."""
    width = 9 - block[0].bit_length() if block else 0
    content = block[width + 3 :]
    if not content or int.from_bytes(block[:width], "big") != number | 1 << 7 * width:
        return 0
    flags = block[width + 2]
    if flags & LACED:
        return 1 + content[0]
    # VP8 refers to frames that are never shown, and not every writer marks them.
    return not (flags & INVISIBLE or vp8 and not content[0] & VP8_SHOWN)


def _whole(data: bytes, *path: int) -> int:
    """The first whole number at a path of names, or 0."""
    return int.from_bytes(next(_inside(data, *path), b""), "big")


def _seconds(segment: bytes) -> float | None:
    tick = _whole(segment, INFO, TICK) or USUAL_TICK
    seconds = _real(next(_inside(segment, INFO, DURATION), b""))
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
