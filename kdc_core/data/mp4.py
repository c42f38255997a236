"""The index of mp4 and mov files: what it says of the video, and when its frames are shown."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import accumulate, groupby, pairwise
from typing import BinaryIO, NamedTuple

from kdc_core.data.orientation import TURNS

# Boxes that no other holds, and boxes of boxes.
OUTER = (b"ftyp", b"moov", b"mdat", b"moof", b"wide", b"free", b"skip")
FOLDERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts")
DEEPEST = 8  # boxes of boxes within each other; those of a video's index are five
# Of an index: some twenty a track, however long the video is.
MOST_BOXES = 1 << 16
# Boxes of a file one after another that are walked over: days of fragments of a second each.
MOST_OUTER = 1 << 22
LARGEST_INDEX = 1 << 28  # bytes
TICKS = (90000, 1000)  # a second; the finer where the fields suffice
LONGEST = (1 << 31) - 1  # ticks


class NoIndex(ValueError):
    """The index is missing, cut off or damaged."""


class Box:
    """One box: a name, and either bytes or the boxes in it.

    Args:
        name: of four letters.
        data: its content.
        depth: boxes that it lies in.
        left: ends once there may be no more boxes; None = after `MOST_BOXES` in it.

    Attributes:
        data: the content of a box of bytes; of no other, whose `inside` has it all.

    Raises:
        NoIndex: a box in it is longer than it, or they lie too deep in each other or are too many.
    """

    def __init__(
        self, name: bytes, data: bytes, depth: int = 0, left: Iterator[int] | None = None
    ):
        left = iter(range(MOST_BOXES)) if left is None else left
        folder = name in FOLDERS
        if folder and depth >= DEEPEST:
            raise NoIndex("boxes within boxes without end")
        self.name, self.data = name, b"" if folder else data
        self.inside: list[Box] = []
        where = 0
        while folder and where + 8 <= len(data):
            if next(left, None) is None:
                raise NoIndex(f"more than {MOST_BOXES} boxes")
            length, begin = _length(data[where : where + 16], len(data) - where)
            if where + length > len(data):
                raise NoIndex(f"a box in {name!r} is longer than it")
            content = data[where + begin : where + length]
            self.inside.append(Box(data[where + 4 : where + 8], content, depth + 1, left))
            where += length

    def all(self, name: str) -> list[Box]:
        """The boxes of a name in it."""
        return [box for box in self.inside if box.name == name.encode()]

    def find(self, path: str) -> Box:
        """The first box below it, by names with slashes between.

        Raises:
            NoIndex: there is none.
        """
        name, _, below = path.partition("/")
        for box in self.all(name):
            return box.find(below) if below else box
        raise NoIndex(f"{self.name!r} has no box '{name}'")

    def encode(self) -> bytes:
        """As it stands in a file."""
        folder = self.name in FOLDERS
        data = b"".join(box.encode() for box in self.inside) if folder else self.data
        return struct.pack(">I4s", 8 + len(data), self.name) + data

    def numbers(self, where: int, kinds: str = "I") -> tuple[int, ...]:
        """Numbers in the content from a byte on.

        Raises:
            NoIndex: it is shorter.
        """
        try:
            return struct.unpack_from(">" + kinds, self.data, where)
        except struct.error as error:
            raise NoIndex(f"{self.name!r} is too short") from error

    def put(self, where: int, value: int) -> None:
        """Set the four bytes from a byte on."""
        self.data = self.data[:where] + struct.pack(">I", value) + self.data[where + 4 :]


class Mp4(NamedTuple):
    """What a file says of its first video.

    Attributes:
        orientation: EXIF's 1 to 8, by which its frames are turned and mirrored to be shown.
        frames: their number; None where it does not say, or where an edit list may hide some.
        cut: whether the file ends before what it says it holds.
    """

    orientation: int
    frames: int | None
    cut: bool


def read_mp4(file: BinaryIO) -> Mp4 | None:
    """What an mp4 or mov file says of its video; None of any other file."""
    head = file.read(8)
    file.seek(0)
    if head[4:] not in OUTER:
        return None
    try:
        start, length, cut = _find_index(file)
        index = _read_index(file, start, length)
        video = _video(index)
        frames = 0 if _hides(video) else video.find("mdia/minf/stbl/stsz").numbers(8)[0]
        return Mp4(_orientation(index, video), frames or None, cut)
    except NoIndex:
        return Mp4(1, None, True)


def retime(file: BinaryIO, seconds: list[float]) -> None:
    """Have each frame of a video be shown for so long.

    Args:
        file: an mp4 as OpenCV's FFmpeg writes it, its index last; open for reading and writing.
        seconds: of each frame, in order.

    Raises:
        NoIndex: it is not such a file, or holds another number of frames.
    """
    start, length, cut = _find_index(file)
    index = _read_index(file, start, length)
    video = _video(index)
    frames = video.find("mdia/minf/stbl/stsz").numbers(8)[0]
    if cut or frames != len(seconds):
        raise NoIndex(f"it holds {frames} of {len(seconds)} frames")
    media, movie = video.find("mdia/mdhd"), index.find("mvhd")
    total = sum(seconds)
    ticks = next((t for t in TICKS if total * t < LONGEST), TICKS[-1])
    ends = [min(LONGEST, round(end * ticks)) for end in accumulate(seconds)]
    steps = (end - begin for begin, end in pairwise([0, *ends]))
    runs = [(len(list(same)), step) for step, same in groupby(steps)]
    times = video.find("mdia/minf/stbl/stts")
    times.data = struct.pack(">II", 0, len(runs)) + b"".join(struct.pack(">II", *r) for r in runs)
    media.put(12, ticks)
    media.put(16, ends[-1])
    shown = min(LONGEST, round(total * movie.numbers(12)[0]))
    movie.put(16, shown)
    video.find("tkhd").put(20, shown)
    for edits in video.all("edts"):
        edits.find("elst").put(8, shown)
    file.seek(start)
    file.write(index.encode())
    file.truncate()


def _find_index(file: BinaryIO) -> tuple[int, int, bool]:
    """Start and length of the index, its head included, and whether the file is cut.

    Of more than `MOST_OUTER` boxes the others are not looked at.
    """
    size, where = file.seek(0, 2), 0
    found, cut = None, False
    for _ in range(MOST_OUTER):
        if where + 8 > size:
            break
        file.seek(where)
        head = file.read(16)
        length, _ = _length(head, size - where)
        # What other tools append is no box, and no sign of a cut.
        cut = cut or head[4:8] in OUTER and where + length > size
        if head[4:8] == b"moov" and found is None:
            found = where, length
        where += length
    if found is None or found[1] > LARGEST_INDEX:
        raise NoIndex("no index of a usual size")
    return (*found, cut)


def _read_index(file: BinaryIO, start: int, length: int) -> Box:
    file.seek(start)
    data = file.read(length)
    _, begin = _length(data[:16], length)
    return Box(b"moov", data[begin:])


def _length(head: bytes, rest: int) -> tuple[int, int]:
    """Of a box with its head, at least 8, and of the head; a box without one takes the rest."""
    length = int.from_bytes(head[:4], "big")
    if length == 1:
        return max(16, int.from_bytes(head[8:16], "big")), 16
    return max(8, length or rest), 8


def _video(index: Box) -> Box:
    for track in index.all("trak"):
        if track.find("mdia/hdlr").data[8:12] == b"vide":
            return track
    raise NoIndex("no video in it")


def _hides(video: Box) -> bool:
    """Whether an edit list shows anything but the whole track, after a pause at most."""
    for edits in video.all("edts"):
        entries = edits.find("elst")
        wide = entries.data[:1] == b"\x01"
        kinds = "QqI" if wide else "IiI"
        step = struct.calcsize(">" + kinds)
        starts = [
            entries.numbers(8 + step * i, kinds)[1] for i in range(min(entries.numbers(4)[0], 3))
        ]
        if [start for start in starts if start >= 0] != [0]:
            return True
    return False


def _orientation(index: Box, video: Box) -> int:
    """Of the product of the track's and the movie's matrix, as the nearest of the eight."""
    track, movie = video.find("tkhd"), index.find("mvhd")
    a, b, _, c, d = track.numbers(52 if track.data[:1] == b"\x01" else 40, "5i")
    e, f, _, g, h = movie.numbers(48 if movie.data[:1] == b"\x01" else 36, "5i")
    a, b, c, d = a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h
    exchange = abs(b) + abs(c) > abs(a) + abs(d)
    right, down = (c, b) if exchange else (a, d)
    turn = (exchange, -1 if down < 0 else 1, -1 if right < 0 else 1)
    return next(number for number, known in TURNS.items() if known == turn)
