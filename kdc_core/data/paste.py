"""Occlusion copy-paste: a person of another image, cut out by its mask, put over people."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from kdc_core.codec.sample import Sample
from kdc_core.data.augment import shrink

LEAST_KEYPOINTS = 5  # labelled, of a person worth pasting
LEAST_SIDE_PX = 32.0  # of its box
# A person of whom less than this fraction of the mask stays visible is gone.
LEAST_VISIBLE = 0.1


class Paste(NamedTuple):
    """Who is put where.

    Attributes:
        person: number among those of the donor.
        matrix: (2, 3) float64, pixels of the donor to pixels of the image.
    """

    person: int
    matrix: np.ndarray


def can_be_pasted(boxes: np.ndarray, keypoints: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """(P,) bool, which people of an image are worth pasting into others.

    Args:
        boxes, keypoints, masked: (P, 4), (P, K, 3), and (P,) bool who has a mask.
    """
    side = (boxes[:, 2:] - boxes[:, :2]).min(1, initial=np.inf)
    labelled = (keypoints[..., 2] > 0).sum(1)
    good: np.ndarray = (labelled >= LEAST_KEYPOINTS) & (side >= LEAST_SIDE_PX) & masked
    return good


def draw_paste(
    boxes: np.ndarray, donor_boxes: np.ndarray, good: np.ndarray, rng: np.random.Generator
) -> Paste | None:
    """Draw a person of another image, and a place beside or over one of this image.

    It comes at 0.6 to 1.4 times the height of the person it covers.

    Args:
        boxes: (P, 4) of the people of this image.
        donor_boxes, good: (Q, 4), and (Q,) of `can_be_pasted`, of the other image.
        rng: source of randomness.

    Returns:
        None where nobody can be pasted.
    """
    if not good.any() or not len(boxes):
        return None
    person = int(rng.choice(np.flatnonzero(good)))
    box, under = donor_boxes[person], boxes[rng.integers(len(boxes))]
    tall, wide = under[3] - under[1], under[2] - under[0]
    scale = rng.uniform(0.6, 1.4) * max(tall, LEAST_SIDE_PX) / (box[3] - box[1])
    reach = np.maximum([wide, tall], LEAST_SIDE_PX)
    to = (under[:2] + under[2:]) / 2 + rng.uniform(-0.6, 0.6, 2) * reach
    shift = to - scale * (box[:2] + box[2:]) / 2
    return Paste(person, np.array([[scale, 0, shift[0]], [0, scale, shift[1]]]))


def put(sample: Sample, donor: Sample, drawn: Paste) -> Sample:
    """Put a person of another image into this one.

    Masks below lose the covered pixels, covered keypoints become hidden (v = 1), and a person of
    whom almost nothing is left is dropped.

    Args:
        sample: the image pasted into; unchanged.
        donor: the image the person is taken from.
        drawn: who, and where.

    Returns:
        A new Sample in the frame of `sample`, the pasted person last; `sample` itself where the
        person would lie outside.
    """
    person, matrix = drawn
    scale, shift = matrix[0, 0], matrix[:, 2]
    height, width = sample.image.shape[:2]
    mask, to_target = shrink(donor.masks[person].astype(np.float32), matrix)
    alpha = cv2.warpAffine(mask, to_target, (width, height), flags=cv2.INTER_LINEAR)
    covered = alpha >= 0.5
    if not covered.any():
        return sample
    image, to_target = shrink(donor.image, matrix)
    image = cv2.warpAffine(image, to_target, (width, height), flags=cv2.INTER_LINEAR)
    blend = alpha[..., None]
    image = (sample.image * (1 - blend) + image * blend + 0.5).astype(np.uint8)

    keypoints = donor.keypoints[person].copy()
    keypoints[:, :2] = keypoints[:, :2] * scale + shift
    x, y = keypoints[:, 0], keypoints[:, 1]
    inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    keypoints[~(inside & (keypoints[:, 2] > 0))] = 0
    rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
    pasted = np.array([columns[0], rows[0], columns[-1], rows[-1]], np.float32)
    pasted += (-0.5, -0.5, 0.5, 0.5)

    below = _hide(sample.keypoints, covered)
    masks = sample.masks & ~covered
    before = sample.masks.sum((1, 2))
    kept = masks.sum((1, 2)) >= LEAST_VISIBLE * before  # also of a person without a mask
    return Sample(
        image,
        np.concatenate((below[kept], keypoints[None])),
        np.concatenate((sample.boxes[kept], pasted[None])),
        np.concatenate((masks[kept], covered[None])),
        sample.crowd & ~covered,
        sample.unmasked & ~covered,
    )


def _hide(keypoints: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Keypoints below covered pixels become hidden."""
    keypoints = keypoints.copy()
    height, width = covered.shape
    column = np.clip(np.round(keypoints[..., 0]), 0, width - 1).astype(np.int64)
    row = np.clip(np.round(keypoints[..., 1]), 0, height - 1).astype(np.int64)
    hidden = covered[row, column] & (keypoints[..., 2] > 0)
    keypoints[..., 2] = np.where(hidden, 1, keypoints[..., 2])
    return keypoints
