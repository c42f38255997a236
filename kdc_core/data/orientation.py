"""How a stored image is turned to be shown: EXIF's eight orientations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kdc_core.data.chunks import PNG, WEBP, chunks
from kdc_core.data.tiff import Tiff, is_tiff

# By orientation: whether rows and columns change places, then steps along the rows and columns.
TURNS = {
    1: (False, 1, 1),
    2: (False, 1, -1),
    3: (False, -1, -1),
    4: (False, -1, 1),
    5: (True, 1, 1),
    6: (True, 1, -1),
    7: (True, -1, -1),
    8: (True, -1, 1),
}
JPEG = b"\xff\xd8"
MARK = b"Exif\0\0"
MOST_BOXES = 1 << 16  # of an avif one after another that are looked at


def read_orientation(data: bytes) -> int:
    """How an encoded jpeg, png, webp, tiff or avif is turned and mirrored to be shown.

    Returns:
        As EXIF's 1 to 8; 1, upright, where it says nothing.
    """
    if data[4:8] == b"ftyp" and not is_tiff(data):
        return _avif(data)
    exif = data if is_tiff(data) else _exif(data)
    found = Tiff(exif).orientation() if is_tiff(exif) else 1
    return found if found in TURNS else 1


def orient(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror an image (H, W, ...) as EXIF says; 1 and other numbers leave it as it is."""
    exchange, down, right = TURNS.get(orientation, TURNS[1])
    image = image.swapaxes(0, 1) if exchange else image
    return np.ascontiguousarray(image[::down, ::right])


def _exif(data: bytes) -> bytes:
    if data.startswith(JPEG):
        parts = (data[start : start + length] for mark, start, length in segments(data))
        return next((p.removeprefix(MARK) for p in parts if p.startswith(MARK)), b"")
    if data.startswith((PNG, WEBP)):
        for name, start, length in chunks(data):
            if name in (b"eXIf", b"EXIF"):
                return data[start : start + length].removeprefix(MARK)
    return b""


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and length of what stands in a jpeg before its pixels."""
    where = len(JPEG)
    while where + 4 <= len(data) and data[where] == 0xFF:
        mark = data[where + 1]
        if mark == 0xFF:  # filling
            where += 1
            continue
        if mark == 0xDA:  # the pixels follow
            return
        length = int.from_bytes(data[where + 2 : where + 4], "big")
        yield mark, where + 4, max(0, length - 2)
        where += 2 + max(2, length)


def _avif(data: bytes) -> int:
    """Of an avif's first image: what its EXIF says is for information alone."""
    meta = next(_contents(data, b"meta"), b"")[4:]
    first = next(_contents(meta, b"pitm"), b"")
    item = int.from_bytes(first[4:8] if first[:1] > b"\0" else first[4:6], "big")
    properties = next(_contents(meta, b"iprp"), b"")
    known = dict(enumerate(_boxes(next(_contents(properties, b"ipco"), b"")), 1))
    upright = np.arange(4).reshape(2, 2)
    shown = upright
    for number in _properties(properties, item):
        name, content = known.get(number, (b"", b""))
        if name == b"irot" and content:
            shown = np.rot90(shown, content[0] & 3)  # to the left
        elif name == b"imir" and content:
            shown = np.flip(shown, content[0] & 1)  # 0 exchanges top and bottom
    return next(turn for turn in TURNS if np.array_equal(orient(upright, turn), shown))


def _properties(properties: bytes, item: int) -> list[int]:
    """Numbers from 1 of an item's properties, in the order in which they apply."""
    for table in _contents(properties, b"ipma"):
        wide_item, wide = 4 if table[:1] > b"\0" else 2, 1 + int.from_bytes(table[3:4], "big") % 2
        where = 8
        while where + wide_item < len(table):
            begin = where + wide_item + 1
            end = begin + wide * table[begin - 1]
            if int.from_bytes(table[where : begin - 1], "big") == item:
                numbers = (table[place : place + wide] for place in range(begin, end, wide))
                # The highest bit tells whether one may be left out.
                return [int.from_bytes(n, "big") & (1 << 8 * wide - 1) - 1 for n in numbers]
            where = end
    return []


def _contents(data: bytes, name: bytes) -> Iterator[bytes]:
    return (content for known, content in _boxes(data) if known == name)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each box; that of the last may be cut off."""
    where = 0
    for _ in range(MOST_BOXES):
        length, begin = int.from_bytes(data[where : where + 4], "big"), 8
        if length == 1:
            length, begin = int.from_bytes(data[where + 8 : where + 16], "big"), 16
        elif length == 0:  # the rest
            length = len(data) - where
        if length < begin or where + begin > len(data):
            return
        yield data[where + 4 : where + 8], data[where + begin : where + length]
        where += length
