"""Pictures that show nobody: people, and what lies around them, made unrecognizable."""

from __future__ import annotations

from dataclasses import replace
from operator import itemgetter

import cv2
import numpy as np

from kdc_core.codec.results import Person, Prediction, size_of
from kdc_core.codec.skeleton import Skeleton

FILL = 128  # gray
# Each a part of a person's size (the root of its box's area), and pixels at least.
BLOCK = (1 / 10, 8.0)  # side of what becomes one color
GROWN = (1 / 20, 3.0)  # by which its mask grows
HEAD = (1 / 7, 6.0)  # what is hidden around the middle of its face, or
FACE = 2.0  # as many times the distance of the face's keypoint farthest from it
OF_FACE = 0.4  # side of a block over the radius of that, where somebody is little but a face
SEEN = 0.1  # score from which a keypoint is hidden, too; far below what is drawn
FAR = 1e6  # pixels; a keypoint that far away, or without numbers for its place, is nowhere
OF_A_FACE = {"nose", "left_eye", "right_eye", "left_ear", "right_ear", "head"}


def hide_people(
    image: np.ndarray,
    prediction: Prediction,
    skeleton: Skeleton,
    fill: bool,
    seen: tuple[slice, slice] | None = None,
) -> np.ndarray:
    """Hide every person on a copy of the image.

    Hidden are each mask and what is near it, bones, and a disk around the face, also where the
    mask has left them out; of a person without a mask, its box.

    Args:
        image: (H, W, 3) uint8.
        prediction: people of this image; take low scores along, for who is not in it is shown.
        skeleton: of their keypoints.
        fill: gray in place of blocks of one color, which grow with the person.
        seen: rows and columns of the image in which people were looked for; everything outside
            is hidden. None = all.

    Returns:
        (H, W, 3) uint8, a copy.

    Raises:
        ValueError: a box that is no numbers, so that nobody knows what to hide.
    """
    hidden = image.copy()
    # Small blocks come first: they must not show the face of somebody larger behind.
    placed = [_placed(person) for person in prediction.persons]
    people = [(_block_px(person, skeleton), person) for person in placed]
    for side_px, person in sorted(people, key=itemgetter(0)):
        mask, window = _cover(person, skeleton, prediction.size)
        if mask.size:
            blocks = _blocks(image[window], side_px, fill)
            np.copyto(hidden[window], blocks, where=mask[..., None])
    if seen is not None:
        inside = hidden[seen].copy()
        hidden[:] = _blocks(image, _px(BLOCK, min(image.shape[:2])), fill)
        hidden[seen] = inside
    return hidden


def _placed(person: Person) -> Person:
    """The person, of whose keypoints those that are nowhere are not seen."""
    if not np.isfinite(person.box).all():
        raise ValueError(f"a person's box: expected numbers, got {person.box.tolist()}")
    there = (np.abs(person.keypoints[:, :2]) < FAR).all(1)
    return replace(person, keypoints=np.where(there[:, None], person.keypoints, 0))


def _block_px(person: Person, skeleton: Skeleton) -> float:
    """Side of the blocks that a person becomes."""
    return max(_px(BLOCK, size_of(person)), OF_FACE * _face(person, skeleton)[1])


def _cover(
    person: Person, skeleton: Skeleton, size: tuple[int, int]
) -> tuple[np.ndarray, tuple[slice, slice]]:
    """What is hidden of one person in an image of (height, width): (h, w) bool, and the rows and
    columns of the image that it lies in."""
    reach = _px(GROWN, size_of(person))
    points = person.keypoints[person.keypoints[:, 2] >= SEEN, :2]
    face, radius = _face(person, skeleton)
    corners = np.concatenate((person.box.reshape(2, 2), points, face - radius, face + radius))
    low = np.floor(corners.min(0) - reach - 1).clip(0, size[::-1]).astype(int)
    high = np.ceil(corners.max(0) + reach + 2).clip(0, size[::-1]).astype(int)
    (left, top), (right, bottom) = low.tolist(), high.tolist()
    shown = np.ones((bottom - top, right - left), np.uint8)
    if not shown.size:
        return shown.astype(bool), (slice(top, bottom), slice(left, right))

    _cut_mask(shown, person, (left, top))
    for a, b in skeleton.bones:
        if person.keypoints[a, 2] >= SEEN and person.keypoints[b, 2] >= SEEN:
            ends = np.rint(person.keypoints[[a, b], :2] - low).astype(int).tolist()
            cv2.line(shown, ends[0], ends[1], 0, 1)
    for x, y in np.rint(points - low).astype(int).tolist():
        cv2.circle(shown, (x, y), 0, 0, -1)
    for x, y in np.rint(face - low).astype(int).tolist():
        cv2.circle(shown, (x, y), max(0, round(radius - reach)), 0, -1)
    distance = cv2.distanceTransform(shown, cv2.DIST_L2, cv2.DIST_MASK_5)
    return distance <= reach, (slice(top, bottom), slice(left, right))


def _cut_mask(shown: np.ndarray, person: Person, corner: tuple[int, int]) -> None:
    """Zero the mask's pixels, or the box's where it has none."""
    left, top = corner
    if person.mask.any():
        rows, columns = person.mask_window
        at = shown[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        at[person.mask] = 0
        return
    x0, y0, x1, y1 = np.rint(person.box).astype(int).clip(0).tolist()
    shown[max(y0 - top, 0) : y1 - top + 1, max(x0 - left, 0) : x1 - left + 1] = 0


def _face(person: Person, skeleton: Skeleton) -> tuple[np.ndarray, float]:
    """The middle of the keypoints of the face, (1, 2), and how far around it is hidden; (0, 2)
    where none are seen."""
    rows = [k for k, name in enumerate(skeleton.keypoints) if name in OF_A_FACE]
    face = person.keypoints[rows]
    face = face[face[:, 2] >= SEEN, :2]
    radius = _px(HEAD, size_of(person))
    if not len(face):
        return face, radius
    middle = face.mean(0, keepdims=True)
    farthest = float(np.linalg.norm(face - middle, axis=1).max())
    return middle, max(radius, FACE * farthest)


def _blocks(part: np.ndarray, side_px: float, fill: bool) -> np.ndarray:
    """The part in blocks of one color, or all gray."""
    if fill:
        return np.full_like(part, FILL)
    height, width = part.shape[:2]
    few = (max(1, round(width / side_px)), max(1, round(height / side_px)))
    small = cv2.resize(part, few, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


def _px(rule: tuple[float, float], size: float) -> float:
    part, least = rule
    return max(least, part * size)
