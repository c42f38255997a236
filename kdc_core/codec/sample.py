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
        masks: (P, H, W) bool; all False where `has_masks` is False.
        crowd: (H, W) bool; regions where no loss is taken.
        has_masks: persons carry masks; else mask and embedding are not trained here.
    """

    image: np.ndarray
    keypoints: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray
    crowd: np.ndarray
    has_masks: bool
