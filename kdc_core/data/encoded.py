"""Encoded images that come from outside: what they are, and how large, is known before they are
decoded."""

from __future__ import annotations

import struct

import numpy as np

from kdc_core.data.bits16 import To8Bits
from kdc_core.data.chunks import PNG, chunks
from kdc_core.data.images import ImageError, decode_stored
from kdc_core.data.orientation import JPEG, segments

JPEG_END = b"\xff\xd9"
# Segments of a jpeg that begin with precision, height and width.
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

Size = tuple[int, int]


def stored_size(data: bytes) -> Size | None:
    """(height, width) of a jpeg or png by its header, before EXIF turns it; None of any other, or
    where it ends before."""
    try:
        if data.startswith(PNG):
            width, height = struct.unpack_from(">II", data, 16)
            return height, width
        if data.startswith(JPEG):
            for mark, start, _ in segments(data):
                if mark in FRAMES:
                    height, width = struct.unpack_from(">HH", data, start + 1)
                    return height, width
    except struct.error:
        pass
    return None


def decode_whole(data: bytes, largest_side: int, to_8_bits: To8Bits) -> np.ndarray:
    """Decode a jpeg or png to (H, W, 3) uint8 RGB, as it is stored: EXIF turns nothing.

    Args:
        data: the encoded image; what stands behind its end is left alone.
        largest_side: pixels.
        to_8_bits: scales sixteen bits.

    Raises:
        ImageError: neither of the two, cut off, too large, or broken.
    """
    if not data.startswith((JPEG, PNG)):
        raise ImageError(f"{len(data)} bytes beginning {data[:8]!r}: expected a jpeg or a png")
    size = stored_size(data)
    if size is None:
        raise ImageError(f"image of {len(data)} bytes ends within its header")
    if not (0 < min(size) and max(size) <= largest_side):
        raise ImageError(
            f"image of size {size[1]}x{size[0]}: expected sides of 1 to {largest_side} pixels"
        )
    if not _is_whole(data):
        raise ImageError(f"image of {len(data)} bytes is cut off")
    image = decode_stored(data, to_8_bits)
    if image is None:
        raise ImageError(f"image of {len(data)} bytes cannot be decoded")
    return image


def _is_whole(data: bytes) -> bool:
    """Whether the end is there: OpenCV makes up the rest of a jpeg that is cut off."""
    if data.startswith(PNG):
        return any(name == b"IEND" for name, _, _ in chunks(data))
    # A preview within the header has an end of its own; within the pixels there is none.
    pixels = max((start + length for _, start, length in segments(data)), default=0)
    return data.find(JPEG_END, pixels) > 0
