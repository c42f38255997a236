"""sensor_msgs/Image to arrays and back."""

from __future__ import annotations

import logging
from array import array
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

log = logging.getLogger(__name__)

LARGEST_SIDE = 8192

# encoding: (dtype, channels, OpenCV's conversion to RGB or None where it is RGB already).
# OpenCV names Bayer patterns after the second row's second pixel, ROS after the first.
_ENCODINGS: dict[str, tuple[type[np.generic], int, int | None]] = {
    "rgb8": (np.uint8, 3, None),
    "bgr8": (np.uint8, 3, cv2.COLOR_BGR2RGB),
    "rgba8": (np.uint8, 4, cv2.COLOR_RGBA2RGB),
    "bgra8": (np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "mono8": (np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "mono16": (np.uint16, 1, cv2.COLOR_GRAY2RGB),
    "8UC1": (np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "8UC3": (np.uint8, 3, cv2.COLOR_BGR2RGB),
    "8UC4": (np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "bayer_rggb8": (np.uint8, 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": (np.uint8, 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": (np.uint8, 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": (np.uint8, 1, cv2.COLOR_BayerGB2RGB),
    "yuv422": (np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    "nv12": (np.uint8, 1, cv2.COLOR_YUV2RGB_NV12),
}
ENCODINGS = tuple(_ENCODINGS)


class BadFrame(ValueError):
    """A frame that cannot be used; the text says why."""


def check_frame(msg: Any) -> np.ndarray:
    """View an Image message's pixels without copying.

    Args:
        msg: sensor_msgs/Image.

    Returns:
        (rows, width, channels) or (rows, width) view of the data in its encoding and in native
        byte order; row padding is skipped. rows is 3/2 of the height for nv12.

    Raises:
        BadFrame: unknown encoding, size out of range, data too short.
    """
    if msg.encoding not in _ENCODINGS:
        raise BadFrame(
            f"encoding '{msg.encoding}' is not known; expected one of {', '.join(ENCODINGS)}"
        )
    if not (0 < msg.width <= LARGEST_SIDE and 0 < msg.height <= LARGEST_SIDE):
        raise BadFrame(
            f"size {msg.width}x{msg.height}: expected sides of 1 to {LARGEST_SIDE} pixels"
        )
    dtype, channels, _ = _ENCODINGS[msg.encoding]
    size = np.dtype(dtype).itemsize
    rows, even = msg.height, channels == 2 or msg.encoding == "nv12"
    if even and msg.width % 2 or msg.encoding == "nv12" and msg.height % 2:
        raise BadFrame(f"size {msg.width}x{msg.height}: '{msg.encoding}' needs even sides")
    if msg.encoding == "nv12":
        rows = rows * 3 // 2
    row_bytes = msg.width * channels * size
    if msg.step < row_bytes:
        raise BadFrame(
            f"step {msg.step}: a row of {msg.width} pixels '{msg.encoding}' has {row_bytes} bytes"
        )
    # The last row's padding may be left out.
    needed = msg.step * (rows - 1) + row_bytes
    if len(msg.data) < needed:
        raise BadFrame(f"data has {len(msg.data)} bytes, expected at least {needed}")
    flat = np.frombuffer(msg.data, np.uint8, count=needed)
    bytes_2d = np.lib.stride_tricks.as_strided(
        flat, (rows, row_bytes), (msg.step, 1), writeable=False
    )
    if size > 1:
        # Rows of two-byte pixels may start at odd addresses: copy, then swap if need be.
        wide = np.ascontiguousarray(bytes_2d).view(">u2" if msg.is_bigendian else "<u2")
        return wide.astype(dtype)
    return bytes_2d.reshape(rows, msg.width, channels) if channels > 1 else bytes_2d


def to_rgb(msg: Any) -> np.ndarray:
    """Convert an Image message to (H, W, 3) uint8 RGB with numpy and OpenCV.

    Sixteen-bit gray keeps its upper eight bits.

    Raises:
        BadFrame: see `check_frame`; or OpenCV refuses the image.
    """
    pixels = check_frame(msg)
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    conversion = _ENCODINGS[msg.encoding][2]
    if conversion is None:
        return pixels
    try:
        return cv2.cvtColor(np.ascontiguousarray(pixels), conversion)
    except cv2.error as error:
        raise BadFrame(
            f"{msg.width}x{msg.height} '{msg.encoding}' cannot be converted: {error.err}"
        ) from error


class Converter:
    """Images to RGB: by cv_bridge for the encodings in which it proves itself, else by `to_rgb`.

    Frames with padding or swapped bytes go through `to_rgb` in any case.

    cv_bridge may import and still be wrong (built for another numpy, or a leftover of ROS 1), so
    each encoding is tried once on a small frame against `to_rgb`.

    Attributes:
        bridged: encodings left to cv_bridge.
    """

    def __init__(self) -> None:
        self._bridge: Any = None
        self.bridged: frozenset[str] = frozenset()
        try:
            from cv_bridge import CvBridge

            self._bridge = CvBridge()
            self.bridged = frozenset(e for e in ENCODINGS if self._proves(e))
        except Exception as error:  # a broken binary raises whatever it likes at import
            log.info("cv_bridge is not used: %s: %s", type(error).__name__, error)

    def __call__(self, msg: Any) -> np.ndarray:
        """Convert an Image message to (H, W, 3) uint8 RGB.

        Raises:
            BadFrame: the frame cannot be used.
        """
        # cv_bridge cuts rows into whole pixels, which is wrong for most paddings, and swaps bytes
        # by a method that numpy 2 no longer has.
        plain = not msg.is_bigendian and check_frame(msg).nbytes == len(msg.data)
        if msg.encoding not in self.bridged or not plain:
            return to_rgb(msg)
        try:
            image = self._bridge.imgmsg_to_cv2(msg, desired_encoding="rgb8")
        except Exception as error:  # CvBridgeError is a class of cv_bridge's own
            raise BadFrame(f"cv_bridge: {error}") from error
        return np.ascontiguousarray(image)

    def _proves(self, encoding: str) -> bool:
        """Whether cv_bridge gives what `to_rgb` gives, on a frame of noise."""
        frame = _noise(encoding)
        wanted = to_rgb(frame)
        try:
            got = np.asarray(self._bridge.imgmsg_to_cv2(frame, desired_encoding="rgb8"))
        except Exception:
            return False
        if got.shape != wanted.shape or got.dtype != np.uint8:
            return False
        # One gray level of rounding is no error.
        return bool(np.abs(got.astype(int) - wanted).max() <= 1)


def _noise(encoding: str) -> Any:
    dtype, channels, _ = _ENCODINGS[encoding]
    height, width = 6, 8
    rows = height * 3 // 2 if encoding == "nv12" else height
    step = width * channels * np.dtype(dtype).itemsize
    data = np.random.default_rng(0).integers(0, 256, rows * step, np.uint8)
    return SimpleNamespace(
        header=None,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=step,
        data=array("B", data.tobytes()),
    )


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
