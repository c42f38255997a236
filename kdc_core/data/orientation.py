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


def read_orientation(data: bytes) -> int:
    """EXIF's orientation of an encoded jpeg, png, webp or tiff; 1, upright, where it has none."""
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
