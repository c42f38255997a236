"""The directories of a tiff: its pages; where EXIF is one, the first has EXIF's tags."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

ORIENTATION, KIND = 0x0112, 0x00FE  # tags
NO_PAGE = 0b101  # bits of KIND: a smaller copy of another page, a mask
NUMBERS = {3: "H", 4: "I"}  # types of whole numbers, and how one is read


@dataclass(frozen=True)
class _Layout:
    order: str  # of bytes
    start: int  # where the offset of the first directory stands
    offset: str
    count: str  # of a directory's entries
    entry: str  # tag, type and count; the value follows, as large as an offset


_LAYOUTS = {
    b"II*\0": _Layout("<", 4, "I", "H", "HHI"),
    b"MM\0*": _Layout(">", 4, "I", "H", "HHI"),
    b"II+\0": _Layout("<", 8, "Q", "Q", "HHQ"),  # files past 4 GB
    b"MM\0+": _Layout(">", 8, "Q", "Q", "HHQ"),
}


class _Directory(NamedTuple):
    numbers: dict[int, tuple[int, str]]  # by tag: where one stands and how it is read
    next: int  # offset of the directory after it, or 0


class Tiff:
    """Reads tags of a tiff; what is cut off counts as not there.

    Args:
        data: the whole file, or EXIF's part of another; begins as `is_tiff` says.
    """

    def __init__(self, data: bytes):
        self._data = data
        self._copy: bytearray | None = None  # of `alone`
        self._upright = slice(0, 0)  # where the copy differs from the data in an orientation
        self._layout = _LAYOUTS[data[:4]]

    def pages(self) -> list[int]:
        """Offsets of the directories of whole images, in order."""
        found: dict[int, _Directory] = {}
        offset = self._first()
        while offset and offset not in found:
            found[offset] = self._directory(offset)
            offset = found[offset].next
        return [page for page, there in found.items() if not self._value(there, KIND) & NO_PAGE]

    def orientation(self, page: int | None = None) -> int:
        """EXIF's 1 to 8 of a page, or of the first directory; 0 where there is none."""
        return self._value(self._directory(self._first() if page is None else page), ORIENTATION)

    def alone(self, page: int) -> bytearray:
        """The file with this page as its first, and as if that were stored upright.

        The same array each time, so that many pages of a large file are not as many copies: it
        holds until the next call.
        """
        if self._copy is None:
            self._copy = bytearray(self._data)
        data, layout = self._copy, self._layout
        data[self._upright] = self._data[self._upright]
        self._upright = slice(0, 0)
        struct.pack_into(layout.order + layout.offset, data, layout.start, page)
        numbers = self._directory(page).numbers
        if ORIENTATION in numbers:
            where, number = numbers[ORIENTATION]
            struct.pack_into(layout.order + number, data, where, 1)
            self._upright = slice(where, where + struct.calcsize("=" + number))
        return data

    def _first(self) -> int:
        try:
            return self._get(self._layout.offset, self._layout.start)[0]
        except struct.error:
            return 0

    def _directory(self, offset: int) -> _Directory:
        layout, numbers = self._layout, {}
        try:
            (entries,) = self._get(layout.count, offset)
            where = offset + struct.calcsize("=" + layout.count)
            for _ in range(entries):
                tag, kind, count = self._get(layout.entry, where)
                where += struct.calcsize("=" + layout.entry)
                whole = where + struct.calcsize("=" + NUMBERS.get(kind, "")) <= len(self._data)
                if kind in NUMBERS and count == 1 and whole:
                    numbers[tag] = where, NUMBERS[kind]
                where += struct.calcsize("=" + layout.offset)
            return _Directory(numbers, self._get(layout.offset, where)[0])
        except struct.error:
            return _Directory(numbers, 0)

    def _value(self, directory: _Directory, tag: int) -> int:
        try:
            where, number = directory.numbers[tag]
            return self._get(number, where)[0]
        except (KeyError, struct.error):
            return 0

    def _get(self, fields: str, where: int) -> tuple[int, ...]:
        form = self._layout.order + fields
        # A slice: unpack_from refuses an offset of 64 bits with another error.
        return struct.unpack(form, self._data[where : where + struct.calcsize(form)])


def is_tiff(data: bytes) -> bool:
    """Whether these bytes begin as a tiff does."""
    return data[:4] in _LAYOUTS
