"""Sample: an image with everything annotated on it, in one frame of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Sample:
    """An image and its P persons.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        keypoints: (P, K, 3) float32 x, y, v in pixels; v = 0 where not labelled.
        boxes: (P, 4) float32 x0, y0, x1, y1.
        masks: (P, H, W) bool; all False of a person without one.
        crowd: (H, W) bool; regions where no loss is taken.
        unmasked: (H, W) bool; regions where mask and embedding take no loss, for there may be
            people without a mask.
    """

    image: np.ndarray
    keypoints: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray
    crowd: np.ndarray
    unmasked: np.ndarray
