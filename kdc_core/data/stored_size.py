"""Sizes of jpeg and png by their headers, before anything is decoded."""

from __future__ import annotations

import struct

from kdc_core.data.chunks import PNG
from kdc_core.data.orientation import JPEG, segments

# Segments of a jpeg that begin with precision, height and width.
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

Size = tuple[int, int]


def stored_size(data: bytes) -> Size | None:
    """(height, width) before EXIF turns it; None where the header is not read here.

    Raises:
        struct.error: it ends before.
    """
    if data.startswith(PNG):
        width, height = struct.unpack_from(">II", data, 16)
        return height, width
    if data.startswith(JPEG):
        for mark, start, _ in segments(data):
            if mark in FRAMES:
                height, width = struct.unpack_from(">HH", data, start + 1)
                return height, width
    return None
