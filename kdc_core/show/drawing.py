"""Overlays: masks, skeletons and centroids drawn on an image."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from kdc_core.codec.results import Person, Prediction, number_of, size_of
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
WHITE, DARK, RING = (255, 255, 255), (20, 20, 20), (255, 235, 60)
FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_people(
    image: np.ndarray, prediction: Prediction, skeleton: Skeleton, keypoint_threshold: float
) -> np.ndarray:
    """Draw every person on a copy of the image.

    A mask is tinted and outlined, bones join visible keypoints, a ring marks each dynamic
    centroid, all as wide as the person is large. Above it is the person's id or, where it has
    none, its number among the people of the image and, given room, its score. Where there are
    rings, a legend at the bottom says what they are.

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
    # The best person is on top, as in the labels.
    people = list(enumerate(prediction.persons))[::-1]
    for index, person in people:
        color = color_of(person, index).tolist()
        _outline(canvas, person, color, thick)
        _skeleton(canvas, person, skeleton, keypoint_threshold, color, thick)
    for index, person in people:
        _caption(canvas, person, index, thick)
    if any(len(person.centroids) for person in prediction.persons):
        _legend(canvas, prediction.persons[0].id is not None, thick)
    return canvas


def color_of(person: Person, index: int) -> np.ndarray:
    """(3,) uint8 RGB of a person: by its id, else by its index among the people of the image."""
    return PALETTE[(number_of(person, index) - 1) % len(PALETTE)]


def _tint(image: np.ndarray, prediction: Prediction) -> np.ndarray:
    """One pass over the label map, whatever the number of people."""
    if not prediction.persons:
        return image.copy()
    table = np.zeros((len(prediction.persons) + 1, 3), np.uint8)
    for index, person in enumerate(prediction.persons):
        table[index + 1] = color_of(person, index)
    labels = prediction.labels
    colored = cv2.addWeighted(image, 1 - MASK_ALPHA, table[labels], MASK_ALPHA, 0)
    cv2.copyTo(image, (labels == 0).view(np.uint8), colored)
    return colored


def _outline(canvas: np.ndarray, person: Person, color: list[int], thick: int) -> None:
    if person.mask.size:
        contours, _ = cv2.findContours(
            person.mask.view(np.uint8),
            cv2.RETR_CCOMP,
            cv2.CHAIN_APPROX_NONE,
            offset=person.mask_origin,
        )
        width = max(1, min(thick, round(size_of(person) / 40)))
        line = cv2.LINE_AA if width > 1 else cv2.LINE_8  # the former is three pixels wide
        cv2.drawContours(canvas, contours, -1, color, width, line)


def _skeleton(
    canvas: np.ndarray,
    person: Person,
    skeleton: Skeleton,
    threshold: float,
    color: list[int],
    thick: int,
) -> None:
    visible = person.keypoints[:, 2] >= threshold
    points = _fixed(person.keypoints[:, :2])
    size = size_of(person)
    width = max(1, min(2 * thick, round(size / 50)))
    bones = [points[[a, b]] for a, b in skeleton.bones if visible[a] and visible[b]]
    if width > 1:  # on a far person a border would hide it
        cv2.polylines(canvas, bones, False, DARK, width + 1, cv2.LINE_AA, _SHIFT)
    cv2.polylines(canvas, bones, False, WHITE, width, cv2.LINE_AA, _SHIFT)
    unit = min(size / 50, 2 * thick) * (1 << _SHIFT)
    for x, y in points[visible].tolist():
        cv2.circle(canvas, (x, y), round(unit), color, -1, cv2.LINE_AA, _SHIFT)
    if size < 30:  # a ring would be a blot
        return
    places = _fixed(person.centroids[:, 1:3]).tolist()
    for keypoint, (x, y) in zip(person.centroids[:, 0].astype(int), places, strict=True):
        if keypoint >= skeleton.num_keypoints or visible[keypoint]:
            cv2.circle(canvas, (x, y), round(2.5 * unit), RING, 1, cv2.LINE_AA, _SHIFT)


_SHIFT = 4  # OpenCV draws with this many fractional bits


def _fixed(points: np.ndarray) -> np.ndarray:
    """(n, 2) pixels as int32 of OpenCV's fractional bits."""
    return np.rint(np.clip(points, -1e5, 1e5) * (1 << _SHIFT)).astype(np.int32)


def _caption(canvas: np.ndarray, person: Person, index: int, thick: int) -> None:
    """The person's number on its color, above its box; smaller on a small person."""
    scale = float(np.clip(size_of(person) / 200, 0.3, 0.35 + 0.1 * thick))
    text = str(number_of(person, index))
    if person.id is None:
        longer = f"{text} {person.score:.2f}"
        if _text_size(longer, scale)[0] <= person.box[2] - person.box[0]:
            text = longer
    width, height = _text_size(text, scale)
    x = int(np.clip(person.box[0], 0, max(0, canvas.shape[1] - width - 4)))
    y = int(np.clip(person.box[1], height + 4, canvas.shape[0]))
    color = color_of(person, index)
    cv2.rectangle(canvas, (x, y - height - 4), (x + width + 3, y), color.tolist(), -1)
    _write(canvas, text, (x + 2, y - 2), scale, DARK if color.mean() > 140 else WHITE)


def _legend(canvas: np.ndarray, tracked: bool, thick: int) -> None:
    """What is what, in the lower left corner; not on an image that has no room for it."""
    panel = _panel(tracked, thick)
    height, width = panel.shape[:2]
    if width <= canvas.shape[1] and 8 * height <= canvas.shape[0]:
        corner = canvas[-height:, :width]
        corner[:] = cv2.addWeighted(corner, 0.3, panel, 0.7, 0)


@lru_cache(8)
def _panel(tracked: bool, thick: int) -> np.ndarray:
    """(h, w, 3) uint8 RGB: a sample of each thing and its name."""
    scale = 0.3 + 0.06 * thick
    names = ("id" if tracked else "number, score", "dynamic centroid", "bone")
    em = _text_size("M", scale)[1] + 2
    widths = [_text_size(name, scale)[0] for name in names]
    panel = np.full((2 * em, sum(widths) + 8 * em, 3), DARK, np.uint8)
    x, y = em // 2, em
    for sample, (name, width) in enumerate(zip(names, widths, strict=True)):
        if sample == 0:
            cv2.rectangle(panel, (x, em // 2), (x + em, em + em // 2), PALETTE[0].tolist(), -1)
        elif sample == 1:
            cv2.circle(panel, (x + em // 2, y), em // 2, RING, thick, cv2.LINE_AA)
        else:
            cv2.line(panel, (x, y), (x + em, y), WHITE, 2 * thick, cv2.LINE_AA)
        x += em + em // 2
        _write(panel, name, (x, y + em // 2), scale, WHITE)
        x += width + em
    return panel


def _text_size(text: str, scale: float) -> tuple[int, int]:
    """(width, height) in pixels."""
    (width, height), _ = cv2.getTextSize(text, FONT, scale, 1)
    return width, height


def _write(
    canvas: np.ndarray, text: str, at: tuple[int, int], scale: float, color: tuple[int, int, int]
) -> None:
    cv2.putText(canvas, text, at, FONT, scale, color, 1, cv2.LINE_AA)
