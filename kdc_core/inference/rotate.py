"""Images of cameras that hang on their side or upside down, and their people, brought back."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import cv2
import numpy as np

from kdc_core.codec.results import Person, Prediction

Degrees = Literal[0, 90, 180, 270]
ROTATIONS: tuple[Degrees, ...] = (0, 90, 180, 270)
CODES = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


def rotate_image(image: np.ndarray, degrees: Degrees) -> np.ndarray:
    """Turn an image (H, W, 3) clockwise.

    Raises:
        ValueError: not by one of ROTATIONS.
    """
    if degrees not in ROTATIONS:
        raise ValueError(f"rotate: expected one of {ROTATIONS}, got {degrees!r}")
    return cv2.rotate(image, CODES[degrees]) if degrees else image


def rotate_back(prediction: Prediction, degrees: Degrees) -> Prediction:
    """People of an image that `rotate_image` turned, in pixels of the image before."""
    if degrees == 0:
        return prediction
    height, width = prediction.size
    persons = tuple(_back(person, (width, height), degrees) for person in prediction.persons)
    size = (width, height) if degrees % 180 else (height, width)
    return Prediction(size, persons, prediction.timings_ms)


def _back(person: Person, size: tuple[int, int], degrees: Degrees) -> Person:
    keypoints, centroids = person.keypoints.copy(), person.centroids.copy()
    keypoints[:, :2] = _points(keypoints[:, :2], size, degrees)
    centroids[:, 1:3] = _points(centroids[:, 1:3], size, degrees)
    corners = _points(person.box.reshape(2, 2), size, degrees)
    origin = person.mask_origin
    if person.mask.size:
        rows, columns = person.mask.shape
        ends = np.array([origin, (origin[0] + columns - 1, origin[1] + rows - 1)])
        x, y = _points(ends, size, degrees).min(0)
        origin = int(x), int(y)
    return replace(
        person,
        keypoints=keypoints,
        centroids=centroids,
        box=np.concatenate((corners.min(0), corners.max(0))),
        mask=np.ascontiguousarray(np.rot90(person.mask, degrees // 90)),
        mask_origin=origin,
    )


def _points(points: np.ndarray, size: tuple[int, int], degrees: Degrees) -> np.ndarray:
    """(n, 2) x, y in a turned image of (width, height), as they were before."""
    x, y = points[:, 0], points[:, 1]
    last_x, last_y = size[0] - 1, size[1] - 1
    before = {90: (y, last_x - x), 180: (last_x - x, last_y - y), 270: (last_y - y, x)}
    return np.stack(before[degrees], 1)
