"""Augmentation: color, then one affine per sample for image, masks and keypoints."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np

from kdc_core.codec.sample import Sample
from kdc_core.codec.skeleton import Skeleton
from kdc_core.config import TrainConfig

# Pixels and masks outside the image; 0 is what the letterbox pads with.
PADDING = 0


def warp(
    sample: Sample, matrix: np.ndarray, size: tuple[int, int], flip: tuple[int, ...] | None
) -> Sample:
    """Move a sample by one affine.

    Args:
        sample: what to move.
        matrix: (2, 3) float, source pixel to target pixel (pixel centers at integers).
        size: (height, width) of the result.
        flip: for a matrix that mirrors, each keypoint's mirror image; else None.

    Returns:
        The sample in the target frame; keypoints that leave it become unlabelled, persons that
        leave it wholly are dropped.
    """
    height, width = size
    matrix = np.asarray(matrix, np.float64)
    image, to_target = shrink(sample.image, matrix)
    image = cv2.warpAffine(
        image, to_target, (width, height), flags=cv2.INTER_LINEAR, borderValue=(PADDING,) * 3
    )
    keypoints = sample.keypoints.copy()
    keypoints[..., :2] = keypoints[..., :2] @ matrix[:, :2].T + matrix[:, 2]
    if flip is not None:
        keypoints = keypoints[:, list(flip)]
    x, y = keypoints[..., 0], keypoints[..., 1]
    inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    keypoints[~(inside & (keypoints[..., 2] > 0))] = 0

    corners = sample.boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    corners = corners @ matrix[:, :2].T + matrix[:, 2]
    hulls = np.concatenate((corners.min(1), corners.max(1)), 1)
    edge = np.array([width, height, width, height]) - 0.5
    hulls, boxes = (part.clip(-0.5, edge) for part in (hulls, moved_boxes(sample.boxes, matrix)))
    kept = (hulls[:, 2:] - hulls[:, :2] > 1).all(1)

    def move(mask: np.ndarray) -> np.ndarray:
        moved = cv2.warpAffine(
            mask.astype(np.uint8), matrix, (width, height), flags=cv2.INTER_NEAREST
        )
        return moved.astype(bool)

    masks = np.zeros((int(kept.sum()), height, width), bool)
    for index, mask in enumerate(sample.masks[kept]):
        masks[index] = move(mask)
    regions = (sample.crowd, sample.unmasked)
    crowd, unmasked = (move(r) if r.any() else np.zeros(size, bool) for r in regions)
    return Sample(image, keypoints[kept], boxes[kept].astype(np.float32), masks, crowd, unmasked)


def moved_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Boxes around the ellipses in boxes (P, 4), which an affine moves.

    A turned person does not grow, as the box around its turned box does.
    """
    center, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    center = center @ matrix[:, :2].T + matrix[:, 2]
    half = np.sqrt(np.square(half) @ np.square(matrix[:, :2]).T)
    return np.concatenate((center - half, center + half), 1)


def shrink(image: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shrink an image that an affine makes less than half as large: warping would alias.

    Returns:
        The image, and the affine that does the rest.
    """
    scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    if scale >= 0.5:
        return image, matrix
    size = [max(1, round(side * scale)) for side in image.shape[:2]]
    small = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    # A pixel x of the small image is the pixel (x + 0.5) * ratio - 0.5 of the large one.
    ratio = np.array([image.shape[1] / size[1], image.shape[0] / size[0]])
    shift = matrix[:, 2] + matrix[:, :2] @ (0.5 * ratio - 0.5)
    return small, np.c_[matrix[:, :2] * ratio, shift]


class View(NamedTuple):
    """How a sample is looked at.

    Attributes:
        matrix: (2, 3) float64, pixels of the image to pixels of the crop.
        mirror: whether it mirrors.
        color: (3, 4) float32, RGB of 0 to 255 and 1 to RGB.
    """

    matrix: np.ndarray
    mirror: bool
    color: np.ndarray


def draw_view(
    size: tuple[int, int], boxes: np.ndarray, train: TrainConfig, rng: np.random.Generator
) -> View:
    """Draw scale, turn, mirror, a crop around a random person, and colors.

    Args:
        size: (height, width) of the image.
        boxes: (P, 4) of its people.
        train: how much of each.
        rng: source of randomness.
    """
    height, width = size
    low, high = train.longer_side
    scale = np.exp(rng.uniform(np.log(low), np.log(high))) / max(height, width)
    angle = np.deg2rad(rng.uniform(-train.rotate_degrees, train.rotate_degrees))
    mirror = bool(rng.random() < train.flip)
    center = np.array([width, height]) / 2
    if len(boxes) and rng.random() < 0.8:
        box = boxes[rng.integers(len(boxes))]
        center = rng.uniform(box[:2], np.maximum(box[2:], box[:2] + 1))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    if mirror:
        turn = np.diag([-1.0, 1.0]) @ turn

    # Where the crop reaches past an image larger than it, move it back inside.
    span = np.abs(turn) @ np.array([width, height])
    middle = turn @ (np.array([width - 1, height - 1]) / 2)
    at = turn @ center
    half = train.crop / 2
    room = np.maximum(span / 2 - half, 0)
    at = middle + np.clip(at - middle + rng.uniform(-0.25, 0.25, 2) * train.crop, -room, room)
    shift = (train.crop - 1) / 2 - at
    matrix = np.concatenate((turn, shift[:, None]), 1)
    return View(matrix, mirror, draw_color(train.color, rng))


def look(sample: Sample, view: View, crop: int, skeleton: Skeleton) -> Sample:
    """The crop of a sample, of so many pixels a side, that a view shows."""
    flip = skeleton.flip if view.mirror else None
    # Before the padding, which has no color in the letterbox either.
    colored = replace(sample, image=cv2.transform(sample.image, view.color))
    return warp(colored, view.matrix, (crop, crop), flip)


def draw_color(strength: float, rng: np.random.Generator) -> np.ndarray:
    """Draw brightness, contrast, saturation and, now and then, no color at all.

    Args:
        strength: 0 leaves colors alone; 0.3 changes each by up to 30 %.
        rng: source of randomness.

    Returns:
        (3, 4) float32: all are linear in the colors, one matrix and an offset.
    """
    if strength == 0:
        return np.eye(3, 4, dtype=np.float32)
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3)
    if rng.random() < 0.05:
        saturation = 0.0
    gray = np.tile([0.299, 0.587, 0.114], (3, 1))
    matrix = (saturation * np.eye(3) + (1 - saturation) * gray) * contrast * brightness
    offset = 128 * (1 - contrast) * brightness
    return np.c_[matrix, np.full(3, offset)].astype(np.float32)
