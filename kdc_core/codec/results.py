"""Results: the people found in one image, in pixels of that image."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Person:
    """One person.

    Attributes:
        score: 0..1.
        keypoints: (K, 3) float32 x, y, score; always all K, in the order of the skeleton.
        box: (4,) float32 x0, y0, x1, y1 around the mask (pixel edges), or around the keypoints
            where the mask is empty.
        mask: (h, w) bool, cut out at `mask_origin`; (0, 0) where the person has no pixel.
        mask_origin: (x, y) of the mask's top-left pixel in the image.
        centroids: (n, 4) float32 keypoint index (that after the last: the body center), x, y,
            weight of the dynamic centroids used.
        id: number of the person over several frames, or None.
        mask_score: 0..1, by which masks are ranked, no probability: that of a good one may be
            low; None = not told. `score` says whether somebody is there.

    Raises:
        ValueError: an array of another shape.
    """

    score: float
    keypoints: np.ndarray
    box: np.ndarray
    mask: np.ndarray
    mask_origin: tuple[int, int]
    centroids: np.ndarray
    id: int | None = None
    mask_score: float | None = None

    def __post_init__(self) -> None:
        _expect("keypoints", self.keypoints, (None, 3))
        _expect("box", self.box, (4,))
        _expect("mask", self.mask, (None, None))
        _expect("centroids", self.centroids, (None, 4))

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(np.count_nonzero(self.mask))

    @property
    def mask_window(self) -> tuple[slice, slice]:
        """Rows and columns of the image that the mask covers."""
        (x, y), (h, w) = self.mask_origin, self.mask.shape
        return slice(y, y + h), slice(x, x + w)

    def full_mask(self, size: tuple[int, int]) -> np.ndarray:
        """The mask in an image of (height, width): (H, W) bool."""
        full = np.zeros(size, bool)
        full[self.mask_window] = self.mask
        return full


@dataclass(frozen=True)
class Prediction:
    """All people of one image, best first.

    Attributes:
        size: (height, width) of the image.
        persons: the people.
        timings_ms: duration of each stage by name.
    """

    size: tuple[int, int]
    persons: tuple[Person, ...]
    timings_ms: dict[str, float] = field(default_factory=dict)

    @cached_property
    def labels(self) -> np.ndarray:
        """(H, W) uint16: 0 background, i + 1 the pixels of `persons[i]`; made when first asked
        for. Where masks overlap, the earlier person is on top."""
        labels = np.zeros(self.size, np.uint16)
        for index in reversed(range(len(self.persons))):
            person = self.persons[index]
            labels[person.mask_window][person.mask] = index + 1
        return labels

    def __len__(self) -> int:
        return len(self.persons)


def number_of(person: Person, index: int) -> int:
    """The person's id, else its number among the people of the image, from 1."""
    return index + 1 if person.id is None else person.id


def size_of(person: Person) -> float:
    """Root of the area of the person's box, whose sides count as one pixel at least."""
    width, height = np.maximum(person.box[2:] - person.box[:2], 1)
    return float(np.sqrt(width * height))


def _expect(name: str, array: np.ndarray, shape: tuple[int | None, ...]) -> None:
    """Of a shape the number of axes and the last, where it is given."""
    got = array.shape
    if len(got) != len(shape) or shape[-1] not in (None, got[-1]):
        raise ValueError(f"{name}: expected shape {shape}, got {got}")
