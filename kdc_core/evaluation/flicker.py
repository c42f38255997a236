"""Video: how often a person whom both neighboring frames show is missing from a frame."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from kdc_core.codec.results import Prediction

# Boxes that overlap so much, from one frame to the next but one, are of one person.
SAME_IOU = 0.3


@dataclass(frozen=True)
class Flicker:
    """What was counted over a clip.

    Attributes:
        frames: of the clip, as far as they could be read.
        expected: persons that the frame before and the frame after show in the same place.
        missing: of these, persons that the frame between does not show there.
        frames_with_missing: frames in which at least one is missing.
    """

    frames: int
    expected: int
    missing: int
    frames_with_missing: int

    @property
    def fraction(self) -> float:
        """Missing of expected persons."""
        return self.missing / max(1, self.expected)


def count_flicker(predictions: Iterable[Prediction | None]) -> Flicker:
    """Count over the predictions of consecutive frames; None of one that could not be read.

    A frame without a prediction, and those beside it, are not judged.
    """
    boxes = [None if prediction is None else _boxes(prediction) for prediction in predictions]
    expected = missing = frames_with_missing = 0
    for before, here, after in zip(boxes, boxes[1:], boxes[2:], strict=False):
        if before is None or here is None or after is None:
            continue
        gone = 0
        for first, second in _pairs(before, after):
            expected += 1
            between = (before[first] + after[second]) / 2
            gone += not (box_iou(between[None], here) >= SAME_IOU).any()
        missing += gone
        frames_with_missing += gone > 0
    read = sum(found is not None for found in boxes)
    return Flicker(read, expected, missing, frames_with_missing)


def _boxes(prediction: Prediction) -> np.ndarray:
    return np.array([person.box for person in prediction.persons], np.float32).reshape(-1, 4)


def _pairs(before: np.ndarray, after: np.ndarray) -> list[tuple[int, int]]:
    """Persons of two frames matched one to one, the best overlaps first."""
    iou = box_iou(before, after)
    pairs = []
    while iou.size and iou.max() >= SAME_IOU:
        first, second = np.unravel_index(iou.argmax(), iou.shape)
        pairs.append((int(first), int(second)))
        iou[first], iou[:, second] = 0, 0
    return pairs


def box_iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """IoU of boxes (n, 4) and (m, 4) x0, y0, x1, y1: (n, m)."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    both = np.prod(np.maximum(high - low, 0), -1)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], -1) for boxes in (one, other)]
    return both / np.maximum(areas[0][:, None] + areas[1][None] - both, 1e-9)
