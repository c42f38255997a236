"""sensor_msgs/CompressedImage to arrays: jpeg and png, as image_transport sends them."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from kdc_core.data.bits16 import To8Bits
from kdc_core.data.chunks import PNG, chunks
from kdc_core.data.images import decode_stored
from kdc_core.data.orientation import JPEG, segments
from kdc_core.data.stored_size import stored_size
from kdc_ros.images import LARGEST_SIDE, BadFrame

JPEG_END = b"\xff\xd9"


def compressed_to_rgb(msg: Any, to_8_bits: To8Bits | None = None) -> np.ndarray:
    """Decode a CompressedImage message to (H, W, 3) uint8 RGB, as the camera saw it.

    What is in it is told by its data: drivers write `format` as they like. An EXIF orientation
    turns nothing, so that pixels are those of camera_info.

    Args:
        msg: sensor_msgs/CompressedImage.
        to_8_bits: as for `to_rgb`.

    Raises:
        BadFrame: no jpeg or png, cut off, or too large, which is known before it is decoded.
    """
    data = bytes(msg.data)
    if not data.startswith((JPEG, PNG)):
        raise BadFrame(
            f"format {msg.format!r:.60}, {len(data)} bytes beginning {data[:8]!r}: expected a "
            "jpeg or a png (compressedDepth is none)"
        )
    try:
        size = stored_size(data)
    except struct.error:
        size = None
    if size is None:
        raise BadFrame(f"compressed image of {len(data)} bytes ends within its header")
    if not (0 < min(size) and max(size) <= LARGEST_SIDE):
        raise BadFrame(
            f"compressed image of size {size[1]}x{size[0]}: expected sides of 1 to {LARGEST_SIDE} "
            "pixels"
        )
    if not _is_whole(data):
        raise BadFrame(f"compressed image of {len(data)} bytes is cut off")
    image = decode_stored(data, to_8_bits or To8Bits())
    if image is None:
        raise BadFrame(f"compressed image of {len(data)} bytes cannot be decoded")
    return image


def _is_whole(data: bytes) -> bool:
    """Whether the end is there: OpenCV makes up the rest of a jpeg that is cut off."""
    if data.startswith(PNG):
        return any(name == b"IEND" for name, _, _ in chunks(data))
    # A preview within the header has an end of its own; within the pixels there is none.
    pixels = max((start + length for _, start, length in segments(data)), default=0)
    return data.find(JPEG_END, pixels) > 0
