"""Image messages of all kinds to RGB."""

from __future__ import annotations

from typing import Any

import numpy as np

from kdc_core.data.bits16 import To8Bits
from kdc_ros.bridge import try_cv_bridge
from kdc_ros.compressed import compressed_to_rgb
from kdc_ros.images import BadFrame, check_frame, to_rgb


class Converter:
    """Images to RGB: by cv_bridge for the encodings in which it proves itself, else by `to_rgb`.

    Compressed ones are decoded by OpenCV.

    Frames with padding or swapped bytes go through `to_rgb` in any case, and so do sixteen bits,
    of which cv_bridge does not ask how many are filled.

    Attributes:
        bridged: encodings left to cv_bridge.
        complaint: why an installed cv_bridge is not used, "" else.
        to_8_bits: of the sixteen-bit images so far; replace it when another stream begins.
    """

    def __init__(self) -> None:
        self._bridge: Any = None
        self.to_8_bits = To8Bits()
        self.bridged, self.complaint = try_cv_bridge()
        if self.bridged:
            from cv_bridge import CvBridge

            self._bridge = CvBridge()

    @property
    def darkness(self) -> str:
        """What is wrong where hardly anything is seen in the sixteen-bit images, "" else."""
        if not self.to_8_bits.nearly_black:
            return ""
        return (
            f"the latest sixteen-bit image is nearly black: its values were taken as of "
            f"{self.to_8_bits.bits} bits, as the brightest image since activate needed"
        )

    def __call__(self, msg: Any) -> np.ndarray:
        """Convert an Image or CompressedImage message to (H, W, 3) uint8 RGB.

        Raises:
            BadFrame: the frame cannot be used.
        """
        if hasattr(msg, "format"):
            return compressed_to_rgb(msg, self.to_8_bits)
        # cv_bridge cuts rows into whole pixels, which is wrong for most paddings, and swaps bytes
        # by a method that numpy 2 does not have, also where a pixel is one byte.
        if msg.encoding not in self.bridged or msg.is_bigendian or _is_padded(msg):
            return to_rgb(msg, self.to_8_bits)
        try:
            image = self._bridge.imgmsg_to_cv2(msg, desired_encoding="rgb8")
        except Exception as error:  # CvBridgeError is a class of cv_bridge's own
            raise BadFrame(f"cv_bridge: {error}") from error
        return np.ascontiguousarray(image)


def _is_padded(msg: Any) -> bool:
    return sum(plane.size for plane in check_frame(msg)) != len(msg.data)
