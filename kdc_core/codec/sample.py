"""Sample: an image with everything annotated on it, in one frame of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


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


@dataclass
class Samples:
    """B samples of one size as torch tensors; people beside each other share no pixel.

    Attributes:
        image: (B, 3, H, W) uint8 RGB.
        labels: (B, H, W) int64; 0 nobody, p + 1 the mask of person p.
        keypoints: (B, P, K, 3) float32 x, y, v in pixels; v = 0 where not labelled.
        boxes: (B, P, 4) float32 x0, y0, x1, y1.
        present: (B, P) bool; False of rows that are no person.
        crowd, unmasked: (B, H, W) bool, as of a Sample.
    """

    image: Tensor
    labels: Tensor
    keypoints: Tensor
    boxes: Tensor
    present: Tensor
    crowd: Tensor
    unmasked: Tensor
