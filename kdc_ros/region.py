"""The part of the image that is processed (parameter `roi`), and its people, brought back."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np

from kdc_core.codec.results import Person, Prediction
from kdc_ros.images import LARGEST_SIDE


class OutsideError(ValueError):
    """A region that does not lie in the image."""


@dataclass(frozen=True)
class Region:
    """A rectangle of an image, in whole pixels.

    Attributes:
        x, y: its top-left pixel.
        width, height: its size.
    """

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> Region | None:
        """Read `X,Y,WIDTH,HEIGHT`; empty text is the whole image, None.

        Raises:
            ValueError: another form, a side of 0, or beyond the largest image.
        """
        if not text.strip():
            return None
        found = re.fullmatch(r"\s*([0-9]{1,5})" + r"\s*,\s*([0-9]{1,5})" * 3 + r"\s*", text)
        region = cls(*map(int, found.groups())) if found else None
        if region is None or not region.width or not region.height:
            raise ValueError("expected X,Y,WIDTH,HEIGHT in pixels of the image (160,0,320,480)")
        if max(region.x + region.width, region.y + region.height) > LARGEST_SIDE:
            raise ValueError(f"expected a part of an image, up to {LARGEST_SIDE} px a side")
        return region

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def window(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)

    def cut(self, image: np.ndarray) -> np.ndarray:
        """The region of an image (H, W, 3), as a view.

        Raises:
            OutsideError: it reaches out of the image.
        """
        height, width = image.shape[:2]
        if self.x + self.width > width or self.y + self.height > height:
            raise OutsideError(
                f"the parameter roi '{self.x},{self.y},{self.width},{self.height}' (x, y, width, "
                f"height) reaches out of the image, which is {width} wide and {height} high"
            )
        return image[self.window]

    def back(self, prediction: Prediction, size: tuple[int, int]) -> Prediction:
        """People of the region in pixels of the image of (height, width)."""
        persons = tuple(self._back(person) for person in prediction.persons)
        return replace(prediction, size=size, persons=persons)

    def _back(self, person: Person) -> Person:
        keypoints, centroids = person.keypoints.copy(), person.centroids.copy()
        keypoints[:, :2] += (self.x, self.y)
        centroids[:, 1:3] += (self.x, self.y)
        x, y = person.mask_origin
        return replace(
            person,
            keypoints=keypoints,
            box=person.box + np.array([self.x, self.y, self.x, self.y], np.float32),
            mask_origin=(x + self.x, y + self.y),
            centroids=centroids,
        )
