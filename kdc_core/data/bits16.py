"""Pixels of 16 bits, of which cameras often fill only 10, 12 or 14, as 8 bits."""

from __future__ import annotations

import numpy as np

DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras fill
DARK = 16  # of 255; below, a pixel is nearly black
BRIGHT_FRACTION = 0.01  # of the values of an image that is not nearly black
HOT_FRACTION = 1e-4  # of an image's values that may lie above the range: defective pixels


class To8Bits:
    """Scales the 16-bit images of one stream to 8 bits, all alike once its brightest was seen.

    The range is the fewest of `DEPTHS` bits that hold each image of the stream so far, but for
    `HOT_FRACTION` of its values, which become white.

    Attributes:
        bits: of the range that is scaled to 0 to 255.
        nearly_black: whether hardly a value of the latest image comes to `DARK`, because it is
            a picture of the dark, or because a few far brighter values stretch the range.
    """

    def __init__(self) -> None:
        self.bits = DEPTHS[0]
        self.nearly_black = False

    @property
    def _most(self) -> np.uint16:
        """The largest value in the range."""
        return np.uint16((1 << self.bits) - 1)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Scale one image.

        Args:
            pixels: uint16 in native byte order, of any shape that is not empty.

        Returns:
            The same shape in uint8.
        """
        if pixels.max() >> self.bits:
            while np.count_nonzero(pixels > self._most) > HOT_FRACTION * pixels.size:
                self.bits = DEPTHS[DEPTHS.index(self.bits) + 1]
            pixels = np.minimum(pixels, self._most)
        scaled = (pixels >> (self.bits - 8)).astype(np.uint8)
        bright = int(np.count_nonzero(scaled >= DARK))
        self.nearly_black = bright < BRIGHT_FRACTION * scaled.size
        return scaled
