"""From what the program returns, at network scale, to a Prediction in image pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np

from kdc_core.codec.grid import Grid, Letterbox
from kdc_core.codec.results import Person, Prediction

MOST_PERSONS = 255  # that decode may be set to find
LEAST_WEIGHT = 0.01  # of a centroid that a person is said to have
USUAL_SIZE_PX = 100.0  # person size, network pixels, at which `Evidence.size` is 0.5
# Powers of `Evidence` in the score (that somebody is there with these keypoints) and in the mask
# score (how good the mask is, beside other masks), found by `tools/fit_scores.py` on training
# images.
SCORE_POWERS = (1.17, 0.69, 0.17, 0.18, 0.14)
MASK_SCORE_POWERS = (0.48, 10.22, 4.06, 0.64, 1.30)


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


class Evidence(NamedTuple):
    """What speaks for each person, (P,) float each in 0..1.

    Attributes:
        pose: score of its pose.
        mask: mean mask probability over its pixels; 0.5 where it has none.
        inside: 1/2 where none of its keypoints lie in its mask, 1 where all do, by their scores.
        size: s / (s + 100), with s the root of the area of the keypoints' box or of the mask,
            whichever is larger, network pixels.
        fill: root of the mask's area over s.
    """

    pose: np.ndarray
    mask: np.ndarray
    inside: np.ndarray
    size: np.ndarray
    fill: np.ndarray

    @classmethod
    def of(cls, raw: Raw, grid: Grid, threshold: float) -> Evidence:
        """That of what the program returned.

        Args:
            raw: see there.
            grid: as for `assemble`.
            threshold: mask probability from which a pixel counts.
        """
        people = len(raw.score)
        counts = raw.mask_probability >= threshold
        cells = np.flatnonzero(counts)  # taking from flat arrays is faster than a mask
        owner = raw.owner.ravel().take(cells)
        total = np.bincount(owner, raw.mask_probability.ravel().take(cells), people + 1)[1:]
        count = np.bincount(owner, minlength=people + 1)[1:]
        mean = np.where(count > 0, total / np.maximum(count, 1), 0.5)

        points = raw.keypoints[..., :2]
        limits = np.array(counts.shape[::-1]) - 1
        cell = np.clip(np.rint(grid.to_cell(points)), 0, limits).astype(int)
        column, row = cell.transpose(2, 0, 1)
        mine = raw.owner[row, column] == np.arange(1, people + 1)[:, None]
        inside = mine & counts[row, column]
        weight = raw.keypoints[..., 2]
        fraction = (inside * weight).sum(1) / np.maximum(weight.sum(1), 1e-6)

        pose_size = np.sqrt(np.ptp(points, axis=1).prod(1))
        # A cell more: nobody's size or fill is nothing.
        mask_size = grid.stride * (np.sqrt(count) + 1)
        size = np.maximum(pose_size, mask_size)
        return cls(
            raw.score,
            mean,
            (1 + fraction) / 2,
            size / (size + USUAL_SIZE_PX),
            mask_size / size,
        )


def weigh(evidence: Evidence, powers: tuple[float, ...]) -> np.ndarray:
    """The product of what speaks for each person, each raised to its power: (P,) in 0..1."""
    factors = zip(evidence, powers, strict=True)
    product: np.ndarray = np.prod([factor**power for factor, power in factors], axis=0)
    return product


@dataclass(frozen=True)
class Thresholds:
    """What counts.

    Attributes:
        confidence: least score of a person.
        keypoint: least score of a visible keypoint.
        mask: least mask probability of a person's pixel.
        max_persons: most persons, the best first.

    Raises:
        ValueError: one that is not in 0..1, or no person.
    """

    confidence: float
    keypoint: float
    mask: float
    max_persons: int = MOST_PERSONS

    def __post_init__(self) -> None:
        for name in ("confidence", "keypoint", "mask"):
            value = getattr(self, name)
            number = isinstance(value, (int, float, np.number))
            if not (number and 0 <= value <= 1):  # nor NaN
                raise ValueError(f"{name}: expected 0 to 1, got {value!r}")
        if self.max_persons < 1:
            raise ValueError(f"max_persons: expected 1 or more, got {self.max_persons!r}")

    def lowered(self, confidence: float) -> Thresholds:
        """These, with people down to this score kept; `narrowed` leaves what these leave."""
        return Thresholds(min(self.confidence, confidence), 0.0, self.mask)


def assemble(
    raw: Raw,
    letterbox: Letterbox,
    image: tuple[int, int],
    grid: Grid,
    thresholds: Thresholds,
) -> Prediction:
    """Bring people to the image and apply the thresholds.

    Its two scores are products of what speaks for a person (`SCORE_POWERS`, `MASK_SCORE_POWERS`).

    Args:
        raw: what the program returned.
        letterbox: how the image was put into the network input.
        image: (height, width) of the image.
        grid: lattice of owner and mask probability (`Codec.mask_grid`).
        thresholds: see Thresholds.
    """
    people = len(raw.score)
    evidence = Evidence.of(raw, grid, thresholds.mask)
    score, mask_score = weigh(evidence, SCORE_POWERS), weigh(evidence, MASK_SCORE_POWERS)
    order = np.argsort(-score, kind="stable")
    order = order[(score[order] > 0) & (score[order] >= thresholds.confidence)]
    order = order[: thresholds.max_persons]

    if not len(order):
        return Prediction(image, ())

    rank = np.zeros(people + 1, np.uint8)
    rank[order + 1] = np.arange(1, len(order) + 1)
    labels, (left, top) = _labels(raw, rank, letterbox.matrix(grid), image, thresholds.mask)
    bounds = extents(labels, len(order))
    boxes = (bounds + (left, top, left, top)).astype(np.float32) - 0.5
    keypoints = raw.keypoints[order].astype(np.float32)
    keypoints[..., :2] = letterbox.to_image(keypoints[..., :2])
    centroids = raw.centroids[order].astype(np.float32)
    centroids[..., 1:3] = letterbox.to_image(centroids[..., 1:3])

    visible = keypoints[..., 2] >= thresholds.keypoint
    used = centroids[..., 3] > LEAST_WEIGHT
    persons = []
    for index, (x0, y0, x1, y1) in enumerate(bounds.tolist()):
        points, box, own = keypoints[index], boxes[index], order[index]
        mask, origin = labels[y0:y1, x0:x1] == index + 1, (left + x0, top + y0)
        if not mask.size:
            if not visible[index].any():
                continue
            box, origin = _around(points[visible[index]]), (0, 0)
        person = Person(
            float(score[own]),
            points,
            box,
            mask,
            origin,
            centroids[index, used[index]],
            mask_score=float(mask_score[own]),
        )
        persons.append(person)
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


def extents(labels: np.ndarray, people: int) -> np.ndarray:
    """The part of the image that each person's pixels span.

    As `scipy.ndimage.find_objects`, in less time: the labels that a row or a column
    holds are united as bits, 31 people at once.

    Args:
        labels: (H, W) uint8, 1 + number of the person; 0 = nobody.
        people: how many there are.

    Returns:
        (people, 4) int64 x0, y0, x1, y1, of which x1 and y1 are past the last pixel; all 0 for who
        has none.
    """
    found = np.zeros((people, 4), np.int64)
    for first in range(0, people, 31):
        part = found[first : first + 31]
        bits = np.left_shift(1, np.arange(len(part)), dtype=np.int32)
        table = np.zeros((1, 256), np.int32)
        table[0, first + 1 : first + 1 + len(part)] = bits
        seen = cv2.LUT(labels, table)
        for axis in (0, 1):
            held = (np.bitwise_or.reduce(seen, axis) & bits[:, None]) != 0
            part[:, axis] = held.argmax(1)
            part[:, 2 + axis] = np.where(held.any(1), held.shape[1] - held[:, ::-1].argmax(1), 0)
    return found


def _labels(
    raw: Raw, rank: np.ndarray, matrix: np.ndarray, image: tuple[int, int], threshold: float
) -> tuple[np.ndarray, tuple[int, int]]:
    """Rank of each pixel's person, uint8, 0 = nobody, in the window where there may be anybody.

    Owner (nearest) and mask probability (bilinear) at the image, cut at the threshold.

    Returns:
        (h, w) labels of the window; x, y of its first pixel in the image.
    """
    x, y, width, height = cv2.boundingRect((raw.mask_probability >= threshold).view(np.uint8))
    rows, columns = raw.owner.shape
    left, right = _reached(x, x + width, columns, matrix[0, 0], matrix[0, 2], image[1])
    top, bottom = _reached(y, y + height, rows, matrix[1, 1], matrix[1, 2], image[0])
    matrix = matrix.copy()
    matrix[:, 2] += matrix[:, :2] @ (left, top)
    size = (bottom - top, right - left)
    owner = at_image(rank.take(raw.owner), matrix, size, cv2.INTER_NEAREST)
    probability = at_image(raw.mask_probability, matrix, size, cv2.INTER_LINEAR)
    return owner * (probability >= threshold), (left, top)


def _reached(
    first: int, stop: int, cells: int, scale: float, shift: float, pixels: int
) -> tuple[int, int]:
    """First pixel, and that past the last, which cells `first` to `stop` of so many have part in.

    Pixel p of so many lies at cell scale * p + shift, between two; beyond the border at its own.
    One pixel at least.
    """
    begin = math.ceil((first - 1 - shift) / scale) if first else 0
    end = math.floor((stop - shift) / scale) + 1 if stop < cells else pixels
    begin = min(max(begin, 0), pixels - 1)
    return begin, max(min(end, pixels), begin + 1)


def at_image(
    values: np.ndarray, matrix: np.ndarray, size: tuple[int, int], interpolation: int
) -> np.ndarray:
    """A map (h, w) at the pixels of an image of (height, width), beyond its border as there.

    Args:
        values: uint8, uint16 or float32.
        matrix: (2, 3) from pixels to cells, of `Letterbox.matrix`.
        size: of the image.
        interpolation: `cv2.INTER_NEAREST` or `cv2.INTER_LINEAR`.
    """
    flags = interpolation | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_REPLICATE
    return cv2.warpAffine(values, matrix, size[::-1], flags=flags, borderMode=border)


def _around(keypoints: np.ndarray) -> np.ndarray:
    """The box, (4,), around keypoints (n, 3), one at least."""
    points = keypoints[:, :2]
    return np.concatenate((points.min(0), points.max(0)))
