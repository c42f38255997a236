"""From what the program returns, at network scale, to a Prediction in image pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from kdc_core.codec.grid import Grid, Letterbox
from kdc_core.codec.results import Person, Prediction


@dataclass(frozen=True)
class Raw:
    """People of one frame as a runtime returns them, numpy, without batch axis.

    Attributes as in `kdc_core.codec.decode.People`: score (P,), keypoints (P, K, 3), centroids
    (P, K', 4), owner (uh, uw) int32, mask_probability (uh, uw) float32.
    """

    score: np.ndarray
    keypoints: np.ndarray
    centroids: np.ndarray
    owner: np.ndarray
    mask_probability: np.ndarray


MOST_PERSONS = 255  # that decode may be set to find


@dataclass(frozen=True)
class Thresholds:
    """What counts.

    Attributes:
        confidence: least score of a person.
        keypoint: least score of a visible keypoint.
        mask: least mask probability of a person's pixel.
        max_persons: most persons, the best first.
    """

    confidence: float
    keypoint: float
    mask: float
    max_persons: int = MOST_PERSONS

    def lowered(self, confidence: float) -> Thresholds:
        """These, with people down to this score kept; `narrowed` leaves what these leave."""
        return Thresholds(min(self.confidence, confidence), 0.0, self.mask)


def assemble(
    raw: Raw,
    letterbox: Letterbox,
    image: tuple[int, int],
    grid: Grid,
    upsample: int,
    thresholds: Thresholds,
) -> Prediction:
    """Bring people to the image and apply the thresholds.

    A person's score is that of its pose times what its mask says of it (`mask_quality`).

    Args:
        raw: what the program returned.
        letterbox: how the image was put into the network input.
        image: (height, width) of the image.
        grid: lattice of the network's maps.
        upsample: factor by which owner and mask probability are finer than it.
        thresholds: see Thresholds.
    """
    people = len(raw.score)
    score = raw.score * mask_quality(raw, grid, upsample, thresholds.mask)
    order = np.argsort(-score, kind="stable")
    order = order[(score[order] > 0) & (score[order] >= thresholds.confidence)]
    order = order[: thresholds.max_persons]

    labels = np.zeros(image, np.uint8)
    if len(order):
        rank = np.zeros(people + 1, np.uint8)
        rank[order + 1] = np.arange(1, len(order) + 1)
        labels = _labels(raw, rank, letterbox, image, grid, upsample, thresholds.mask)
    keypoints = raw.keypoints[order].astype(np.float32)
    keypoints[..., :2] = letterbox.to_image(keypoints[..., :2])
    centroids = raw.centroids[order].astype(np.float32)
    centroids[..., 1:3] = letterbox.to_image(centroids[..., 1:3])

    persons = []
    for index, place in enumerate(extents(labels, len(order))):
        points = keypoints[index]
        visible = points[:, 2] >= thresholds.keypoint
        if place is not None or visible.any():
            mask = np.zeros((0, 0), bool) if place is None else labels[place] == index + 1
            persons.append(
                _person(score[order[index]], points, visible, centroids[index], mask, place)
            )
    return Prediction(image, tuple(persons))


def narrowed(prediction: Prediction, thresholds: Thresholds) -> Prediction:
    """Of what was assembled with `thresholds.lowered`, what these thresholds leave: the same
    people as if it had been assembled with them."""
    persons = []
    good = [p for p in prediction.persons if p.score >= thresholds.confidence]
    for person in good[: thresholds.max_persons]:
        visible = person.keypoints[:, 2] >= thresholds.keypoint
        if person.mask.size:
            persons.append(person)
        elif visible.any():
            persons.append(replace(person, box=_around(person.keypoints[visible])))
    return replace(prediction, persons=tuple(persons))


def extents(labels: np.ndarray, people: int) -> list[tuple[slice, slice] | None]:
    """Rows and columns that each person's pixels span; None for who has none.

    As `scipy.ndimage.find_objects`, in less time: the labels that a row or a column
    holds are united as bits, 31 people at once.

    Args:
        labels: (H, W) uint8, 1 + number of the person; 0 = nobody.
        people: how many there are.
    """
    found: list[tuple[slice, slice] | None] = []
    for first in range(0, people, 31):
        bits = np.left_shift(1, np.arange(min(31, people - first)), dtype=np.int32)
        table = np.zeros((1, 256), np.int32)
        table[0, first + 1 : first + 1 + len(bits)] = bits
        seen = cv2.LUT(labels, table)
        sides = [np.bitwise_or.reduce(seen, axis) & bits[:, None] for axis in (1, 0)]
        for held in zip(*sides, strict=True):
            y, x = (np.flatnonzero(side) for side in held)
            ends = [(int(on[0]), int(on[-1]) + 1) for on in (y, x) if len(on)]
            found.append((slice(*ends[0]), slice(*ends[1])) if ends else None)
    return found


def mask_quality(raw: Raw, grid: Grid, upsample: int, threshold: float) -> np.ndarray:
    """How well each person's mask bears it out: (P,) in 0..1.

    The square of the mean mask probability over its pixels (0.5 where it has none), halved where
    none of its keypoints lie in its mask.

    Args:
        raw: what the program returned.
        grid, upsample: as for `assemble`.
        threshold: mask probability from which a pixel counts.
    """
    people = len(raw.score)
    counts = raw.mask_probability >= threshold
    cells = np.flatnonzero(counts)  # taking from flat arrays is faster than a mask
    owner = raw.owner.ravel().take(cells)
    total = np.bincount(owner, raw.mask_probability.ravel().take(cells), people + 1)[1:]
    count = np.bincount(owner, minlength=people + 1)[1:]
    mean = np.where(count > 0, total / np.maximum(count, 1), 0.5)

    cell = grid.finer(upsample).to_cell(raw.keypoints[..., :2])
    limits = np.array(counts.shape[::-1]) - 1
    column, row = np.clip(np.rint(cell), 0, limits).astype(int).transpose(2, 0, 1)
    mine = raw.owner[row, column] == np.arange(1, people + 1)[:, None]
    inside = mine & counts[row, column]
    weight = raw.keypoints[..., 2]
    fraction = (inside * weight).sum(1) / np.maximum(weight.sum(1), 1e-6)
    quality: np.ndarray = mean**2 * (1 + fraction) / 2
    return quality


def _labels(
    raw: Raw,
    rank: np.ndarray,
    letterbox: Letterbox,
    image: tuple[int, int],
    grid: Grid,
    upsample: int,
    threshold: float,
) -> np.ndarray:
    """Rank of each pixel's person, (H, W) uint8; 0 = nobody.

    Owner (nearest) and mask probability (bilinear) at the image, cut at the threshold.
    """
    fine = grid.finer(upsample)
    offset, step = fine.offset, fine.stride
    # cell = (network pixel - offset) / step, network pixel = (x + 0.5) * scale - 0.5
    matrix = np.array(
        [
            [letterbox.scale_x / step, 0, (0.5 * letterbox.scale_x - 0.5 - offset) / step],
            [0, letterbox.scale_y / step, (0.5 * letterbox.scale_y - 0.5 - offset) / step],
        ]
    )
    size = image[::-1]
    inverse = cv2.WARP_INVERSE_MAP
    owner = cv2.warpAffine(
        rank.take(raw.owner),
        matrix,
        size,
        flags=cv2.INTER_NEAREST | inverse,
        borderMode=cv2.BORDER_REPLICATE,
    )
    probability = cv2.warpAffine(
        raw.mask_probability,
        matrix,
        size,
        flags=cv2.INTER_LINEAR | inverse,
        borderMode=cv2.BORDER_REPLICATE,
    )
    labels: np.ndarray = owner * (probability >= threshold)
    return labels


def _person(
    score: float,
    keypoints: np.ndarray,
    visible: np.ndarray,
    centroids: np.ndarray,
    mask: np.ndarray,
    place: tuple[slice, slice] | None,
) -> Person:
    used = centroids[centroids[:, 3] > 0.01]
    if place is None:
        return Person(float(score), keypoints, _around(keypoints[visible]), mask, (0, 0), used)
    rows, columns = place
    box = np.array([columns.start, rows.start, columns.stop, rows.stop], np.float32) - 0.5
    return Person(float(score), keypoints, box, mask, (columns.start, rows.start), used)


def _around(keypoints: np.ndarray) -> np.ndarray:
    """The box, (4,), around keypoints (n, 3), one at least."""
    points = keypoints[:, :2]
    return np.concatenate((points.min(0), points.max(0)))
