"""Overlays: masks, skeletons and centroids drawn on an image."""

from __future__ import annotations

import cv2
import numpy as np

from kdc_core.codec.results import Person, Prediction
from kdc_core.codec.skeleton import Skeleton

# RGB, far apart in hue and lightness; a person keeps the color of its id.
PALETTE = np.array(
    [
        (66, 135, 245),
        (240, 98, 58),
        (60, 180, 90),
        (236, 190, 40),
        (160, 90, 220),
        (30, 190, 200),
        (235, 80, 150),
        (130, 190, 40),
        (120, 110, 250),
        (200, 130, 60),
        (0, 150, 130),
        (230, 60, 60),
        (170, 170, 60),
        (90, 160, 250),
        (220, 120, 220),
        (100, 200, 140),
    ],
    np.uint8,
)
MASK_ALPHA = 0.45


def draw_people(
    image: np.ndarray, prediction: Prediction, skeleton: Skeleton, keypoint_threshold: float
) -> np.ndarray:
    """Draw every person on a copy of the image.

    A mask is tinted and outlined, bones join visible keypoints, a ring marks each dynamic
    centroid, and the number above the box is the person's id (or score where it has none).

    Args:
        image: (H, W, 3) uint8 RGB.
        prediction: people of this image.
        skeleton: for its bones.
        keypoint_threshold: keypoints below are not drawn.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    canvas = _tint(image, prediction)
    thick = max(1, round(max(image.shape[:2]) / 400))
    for index, person in enumerate(prediction.persons):
        color = color_of(person, index).tolist()
        _outline(canvas, person, color, thick)
        _skeleton(canvas, person, skeleton, keypoint_threshold, color, thick)
    for index, person in enumerate(prediction.persons):
        _caption(canvas, person, color_of(person, index).tolist(), thick)
    return canvas


def color_of(person: Person, index: int) -> np.ndarray:
    """(3,) uint8 RGB of a person: by its id, else by its index among the people of the image."""
    return PALETTE[(index if person.id is None else person.id - 1) % len(PALETTE)]


def _tint(image: np.ndarray, prediction: Prediction) -> np.ndarray:
    """One pass over the label map, whatever the number of people."""
    if not prediction.persons:
        return image.copy()
    table = np.zeros((len(prediction.persons) + 1, 3), np.uint8)
    for index, person in enumerate(prediction.persons):
        table[index + 1] = color_of(person, index)
    colored = cv2.addWeighted(image, 1 - MASK_ALPHA, table[prediction.labels], MASK_ALPHA, 0)
    return np.where((prediction.labels > 0)[..., None], colored, image)


def _outline(canvas: np.ndarray, person: Person, color: list[int], thick: int) -> None:
    if person.mask.size:
        contours, _ = cv2.findContours(
            person.mask.astype(np.uint8),
            cv2.RETR_CCOMP,
            cv2.CHAIN_APPROX_NONE,
            offset=person.mask_origin,
        )
        cv2.drawContours(canvas, contours, -1, color, thick, cv2.LINE_AA)


def _skeleton(
    canvas: np.ndarray,
    person: Person,
    skeleton: Skeleton,
    threshold: float,
    color: list[int],
    thick: int,
) -> None:
    visible = person.keypoints[:, 2] >= threshold
    points = [_fixed(p) for p in person.keypoints[:, :2]]
    # Bones of small people are thinner, or they hide them.
    size = max(person.box[2] - person.box[0], person.box[3] - person.box[1])
    width = max(1, min(2 * thick, round(size / 60)))
    for a, b in skeleton.bones:
        if visible[a] and visible[b]:
            cv2.line(canvas, points[a], points[b], (20, 20, 20), width + 1, cv2.LINE_AA, _SHIFT)
            cv2.line(canvas, points[a], points[b], (255, 255, 255), width, cv2.LINE_AA, _SHIFT)
    for k in np.nonzero(visible)[0]:
        cv2.circle(canvas, points[k], (width + 1) << _SHIFT, color, -1, cv2.LINE_AA, _SHIFT)
    for keypoint, x, y, _ in person.centroids:
        if int(keypoint) >= skeleton.num_keypoints or visible[int(keypoint)]:
            ring = (2 * width + 2) << _SHIFT
            cv2.circle(canvas, _fixed((x, y)), ring, (255, 235, 60), 1, cv2.LINE_AA, _SHIFT)


_SHIFT = 4  # OpenCV draws with this many fractional bits


def _fixed(point: np.ndarray | tuple[float, float]) -> tuple[int, int]:
    x, y = (float(np.clip(v, -1e5, 1e5)) for v in point)
    return round(x * (1 << _SHIFT)), round(y * (1 << _SHIFT))


def _caption(canvas: np.ndarray, person: Person, color: list[int], thick: int) -> None:
    text = f"{person.score:.2f}" if person.id is None else f"{person.id}"
    scale = 0.35 + 0.1 * thick
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    x = int(np.clip(person.box[0], 0, max(0, canvas.shape[1] - width - 4)))
    y = int(np.clip(person.box[1], height + 4, canvas.shape[0]))
    cv2.rectangle(canvas, (x, y - height - 4), (x + width + 3, y), color, -1)
    cv2.putText(
        canvas,
        text,
        (x + 2, y - 3),
        cv2.FONT_HERSHEY_SIMPLEX,
        scale,
        (255, 255, 255),
        1,
        cv2.LINE_AA,
    )
