"""Stands in for cv_bridge, which has no wheel: the part of CvBridge that this project calls.

It really converts, and has the habits of the real one: rows are cut into whole pixels
(`step / channels` rounded down), every row must have its padding, the OpenCV types (8UC3 and
such) are no colors, and what it does not know raises CvBridgeError. Sixteen bits become eight
by the factor 255 / 65535, rounded.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

# encoding: (dtype, channels, OpenCV's conversion to RGB)
_COLORS: dict[str, tuple[type[np.generic], int, int | None]] = {
    "rgb8": (np.uint8, 3, None),
    "bgr8": (np.uint8, 3, cv2.COLOR_BGR2RGB),
    "rgba8": (np.uint8, 4, cv2.COLOR_RGBA2RGB),
    "bgra8": (np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "mono8": (np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "mono16": (np.uint16, 1, cv2.COLOR_GRAY2RGB),
    "bayer_rggb8": (np.uint8, 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": (np.uint8, 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": (np.uint8, 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": (np.uint8, 1, cv2.COLOR_BayerGB2RGB),
    "yuv422": (np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
}


class CvBridgeError(TypeError):
    """A conversion that cannot be done."""


class CvBridge:
    """Image messages to arrays."""

    def imgmsg_to_cv2(self, img_msg: Any, desired_encoding: str = "passthrough") -> np.ndarray:
        """Convert a message to RGB; no other conversion is part of the stub."""
        if desired_encoding != "rgb8":
            raise NotImplementedError(f"the stub converts to rgb8 only, not {desired_encoding}")
        if img_msg.encoding not in _COLORS:
            raise CvBridgeError(
                f"[{img_msg.encoding}] is not a color format. but [{desired_encoding}] is. "
                "The conversion does not make sense"
            )
        dtype, channels, conversion = _COLORS[img_msg.encoding]
        order = np.dtype(dtype).newbyteorder(">" if img_msg.is_bigendian else "<")
        columns = img_msg.step // order.itemsize // channels
        shape = (img_msg.height, columns) + ((channels,) if channels > 1 else ())
        # Raises TypeError where the buffer is too small for these rows.
        image = np.ndarray(shape, order, img_msg.data)[:, : img_msg.width]
        image = np.ascontiguousarray(image).astype(dtype)
        if conversion is not None:
            image = cv2.cvtColor(image, conversion)
        if image.dtype == np.uint16:
            image = np.rint(image * (255 / 65535)).astype(np.uint8)
        return image
