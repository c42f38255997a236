"""sensor_msgs/Image to arrays and back."""

from __future__ import annotations

import re
from array import array
from typing import Any

import cv2
import numpy as np

from kdc_core.data.bits16 import To8Bits

LARGEST_SIDE = 8192
SMALLEST_BAYER = 3  # OpenCV makes smaller ones black

# Encodings of one plane: (dtype, channels, OpenCV's conversion to RGB or None where it is RGB).
# OpenCV names Bayer patterns after the second row's second pixel, ROS after the first. Sixteen
# bits are converted once they are eight, without alpha.
PACKED: dict[str, tuple[type[np.generic], int, int | None]] = {
    "rgb8": (np.uint8, 3, None),
    "bgr8": (np.uint8, 3, cv2.COLOR_BGR2RGB),
    "rgba8": (np.uint8, 4, cv2.COLOR_RGBA2RGB),
    "bgra8": (np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "mono8": (np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "8UC1": (np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "8UC3": (np.uint8, 3, cv2.COLOR_BGR2RGB),
    "8UC4": (np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "rgb16": (np.uint16, 3, None),
    "bgr16": (np.uint16, 3, cv2.COLOR_BGR2RGB),
    "rgba16": (np.uint16, 4, None),
    "bgra16": (np.uint16, 4, cv2.COLOR_BGR2RGB),
    "mono16": (np.uint16, 1, cv2.COLOR_GRAY2RGB),
    "16UC3": (np.uint16, 3, cv2.COLOR_BGR2RGB),
    "16UC4": (np.uint16, 4, cv2.COLOR_BGR2RGB),
    "bayer_rggb8": (np.uint8, 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": (np.uint8, 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": (np.uint8, 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": (np.uint8, 1, cv2.COLOR_BayerGB2RGB),
    "bayer_rggb16": (np.uint16, 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr16": (np.uint16, 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg16": (np.uint16, 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg16": (np.uint16, 1, cv2.COLOR_BayerGB2RGB),
    "yuv422": (np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
}
# Those of a plane of luma and one of chroma, a pair of values for each 2 x 2 pixels.
_SUBSAMPLED = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}
ENCODINGS = (*PACKED, *_SUBSAMPLED, "nv24")
# Of the encodings named after OpenCV's types, those that are no image by themselves.
_NO_IMAGE = re.compile(r"(8|16|32|64)[USF]C\d*")
_NO_IMAGE_TEXT = (
    " as an image's (16UC1, two channels, signed or float values are depth by convention: publish "
    "mono16)"
)

# Y, U, V of nv24, which OpenCV does not know, to RGB: BT.601 in video range, as it converts nv12.
_BLACK_Y = 16
_YUV_TO_RGB = np.array(
    [[1.164384, 0, 1.596027], [1.164384, -0.391762, -0.812968], [1.164384, 2.017232, 0]]
)
_YUV_TO_RGB = np.column_stack([_YUV_TO_RGB, _YUV_TO_RGB @ (-_BLACK_Y, -128, -128)])


class BadFrame(ValueError):
    """A frame that cannot be used; the text says why."""


def check_frame(msg: Any) -> list[np.ndarray]:
    """View an Image message's data without copying.

    Args:
        msg: sensor_msgs/Image.

    Returns:
        (rows, bytes) view of each plane, uint8: one, or luma and chroma of nv12, nv21 and nv24;
        row padding is skipped. Where two pixels share their chroma, there is room for an even
        number of them.

    Raises:
        BadFrame: unknown encoding, size out of range, data too short.
    """
    _check_encoding_and_size(msg)
    planes, end, start = [], 0, 0
    for rows, row_bytes, step in _planes(msg):
        if step < row_bytes:
            raise BadFrame(
                f"step {msg.step}: a row of {msg.width} pixels '{msg.encoding}' has "
                f"{row_bytes} bytes"
            )
        planes.append((start, rows, row_bytes, step))
        end = start + step * (rows - 1) + row_bytes  # the last row's padding may be left out
        start += step * rows
    if len(msg.data) < end:
        raise BadFrame(f"data has {len(msg.data)} bytes, expected at least {end}")
    data = np.frombuffer(msg.data, np.uint8, count=end)
    return [
        np.lib.stride_tricks.as_strided(
            data[start:], (rows, row_bytes), (step, 1), writeable=False
        )
        for start, rows, row_bytes, step in planes
    ]


def _check_encoding_and_size(msg: Any) -> None:
    if msg.encoding not in ENCODINGS:
        why = _NO_IMAGE_TEXT if _NO_IMAGE.fullmatch(msg.encoding) else ""
        raise BadFrame(
            f"encoding {msg.encoding!r:.60} is not known{why}; expected one of "
            f"{', '.join(ENCODINGS)}"
        )
    if not (0 < msg.width <= LARGEST_SIDE and 0 < msg.height <= LARGEST_SIDE):
        raise BadFrame(
            f"size {msg.width}x{msg.height}: expected sides of 1 to {LARGEST_SIDE} pixels"
        )
    if msg.encoding.startswith("bayer_") and min(msg.width, msg.height) < SMALLEST_BAYER:
        raise BadFrame(
            f"size {msg.width}x{msg.height}: '{msg.encoding}' needs sides of at least "
            f"{SMALLEST_BAYER} pixels"
        )


def _planes(msg: Any) -> list[tuple[int, int, int]]:
    """Rows, bytes of a row, and bytes from one row to the next, of each plane of the data."""
    width, height, step = msg.width, msg.height, msg.step
    even = width + width % 2
    if msg.encoding in _SUBSAMPLED:
        return [(height, width, step), ((height + 1) // 2, even, step)]
    if msg.encoding == "nv24":
        return [(height, width, step), (height, 2 * width, 2 * step)]
    dtype, channels, _ = PACKED[msg.encoding]
    columns = even if channels == 2 else width
    return [(height, columns * channels * np.dtype(dtype).itemsize, step)]


def to_rgb(msg: Any, to_8_bits: To8Bits | None = None) -> np.ndarray:
    """Convert an Image message to (H, W, 3) uint8 RGB with numpy and OpenCV.

    Args:
        msg: sensor_msgs/Image.
        to_8_bits: scales sixteen-bit values as those of the stream so far; None = as those of this
            image alone.

    Raises:
        BadFrame: see `check_frame`; or OpenCV refuses the image.
    """
    planes = check_frame(msg)
    try:
        if msg.encoding in PACKED:
            rgb = _packed_to_rgb(msg, planes[0], to_8_bits or To8Bits())
        elif msg.encoding in _SUBSAMPLED:
            rgb = _nv12_to_rgb(msg, *planes)
        else:
            rgb = _nv24_to_rgb(*planes)
    except cv2.error as error:
        raise BadFrame(
            f"{msg.width}x{msg.height} '{msg.encoding}' cannot be converted: {error.err}"
        ) from error
    return np.ascontiguousarray(rgb[: msg.height, : msg.width])


def _packed_to_rgb(msg: Any, plane: np.ndarray, to_8_bits: To8Bits) -> np.ndarray:
    dtype, channels, conversion = PACKED[msg.encoding]
    if dtype is np.uint16:
        # Rows of two-byte values may start at odd addresses: copy, then swap if need be.
        values = np.ascontiguousarray(plane).view(">u2" if msg.is_bigendian else "<u2")
        # Alpha is always full and would hide how many bits the colors fill.
        values = values.astype(np.uint16).reshape(msg.height, -1, channels)[..., :3]
        plane, channels = to_8_bits(values), values.shape[-1]
    shape = (len(plane), -1, channels) if channels > 1 else (len(plane), -1)
    pixels = plane.reshape(shape)
    return pixels if conversion is None else cv2.cvtColor(pixels, conversion)


def _nv12_to_rgb(msg: Any, luma: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    """Of nv12 and nv21: each 2 x 2 pixels share one pair of chroma values."""
    if msg.height % 2 or msg.width % 2:
        luma = np.pad(luma, ((0, msg.height % 2), (0, msg.width % 2)), "edge")
    pairs = chroma.reshape(len(chroma), -1, 2)
    return cv2.cvtColorTwoPlane(luma, pairs, _SUBSAMPLED[msg.encoding])


def _nv24_to_rgb(luma: np.ndarray, chroma: np.ndarray) -> np.ndarray:
    yuv = np.dstack([np.maximum(luma, _BLACK_Y), chroma.reshape(*luma.shape, 2)])
    return cv2.transform(yuv, _YUV_TO_RGB)


def fill_image(msg: Any, pixels: np.ndarray, encoding: str) -> Any:
    """Put pixels into an Image message.

    Args:
        msg: sensor_msgs/Image with its header set.
        pixels: (H, W) or (H, W, C), uint8 or uint16.
        encoding: ROS name of their layout.
    """
    pixels = np.ascontiguousarray(pixels)
    msg.height, msg.width = pixels.shape[:2]
    msg.encoding = encoding
    msg.is_bigendian = 0
    msg.step = pixels.strides[0]
    msg.data = byte_array(pixels)
    return msg


def byte_array(values: np.ndarray) -> array[int]:
    """Bytes as array('B'): the one type that message fields take without a look at each byte."""
    data = array("B")
    if values.size:
        data.frombytes(np.ascontiguousarray(values).data.cast("B"))
    return data
