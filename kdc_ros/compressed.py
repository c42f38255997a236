"""sensor_msgs/CompressedImage to arrays: jpeg and png, as image_transport sends them."""

from __future__ import annotations

from typing import Any

import numpy as np

from kdc_core.data.bits16 import To8Bits
from kdc_core.data.encoded import decode_whole
from kdc_core.errors import KdcError
from kdc_ros.images import LARGEST_SIDE, BadFrame


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
    try:
        return decode_whole(bytes(msg.data), LARGEST_SIDE, to_8_bits or To8Bits())
    except KdcError as error:
        raise BadFrame(f"compressed image of format {msg.format!r:.60}: {error}") from error
