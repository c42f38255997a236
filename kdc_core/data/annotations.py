"""Annotations: typed persons of typed images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kdc_core.codec.skeleton import COCO17, Skeleton
from kdc_core.errors import KdcError

# A person's area where the file gives none and no mask, as a fraction of its box: CrowdPose's
# rule, also that of xtcocotools.
BOX_FRACTION = 0.53
# COCO's areas in pixels, the upper limit excluded.
SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, np.inf)}


class AnnotationError(KdcError):
    """An annotation file that cannot be used; the text says what was expected."""


@dataclass(frozen=True)
class AnnotatedPerson:
    """One person, in pixels of its image.

    Attributes:
        id: of the annotation in the file; its place there, from 1, in a file whose ids are not
            whole numbers from 1, one each.
        keypoints: (K, 3) float32 x, y, v; v is 0 unlabelled, 1 hidden, 2 visible. x and y are
            those of the pixel's center.
        box: (4,) float32 x0, y0, x1, y1.
        segmentation: None where nothing says which pixels; else polygons or an RLE as
            `kdc_core.data.masks` takes them.
        crowd: a region of many people, not one person.
        area: pixels; the scale of OKS and of COCO's size groups.
        num_keypoints: how many keypoints count in scoring; of CrowdPose without head and neck.
    """

    id: int
    keypoints: np.ndarray
    box: np.ndarray
    segmentation: Any
    crowd: bool
    area: float
    num_keypoints: int

    @property
    def labelled(self) -> np.ndarray:
        """(K,) bool: keypoints that are labelled."""
        labelled: np.ndarray = self.keypoints[:, 2] > 0
        return labelled


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and everybody annotated on it.

    Attributes:
        id: of the file's `images`; the place there, from 1, in a file whose ids are no numbers.
        file_name: of the file's `images`.
        size: (height, width).
        annotations: of persons and of crowd regions.
        crowd_index: of CrowdPose, from 0; None elsewhere.
        file_id: the id as the file writes it, which is what results name; None = `id`.
    """

    id: int
    file_name: str
    size: tuple[int, int]
    annotations: tuple[AnnotatedPerson, ...] = ()
    crowd_index: float | None = None
    file_id: int | str | None = None

    @property
    def people(self) -> list[AnnotatedPerson]:
        """The persons that are no crowd regions."""
        return [person for person in self.annotations if not person.crowd]


# Wraps the images and their number, to show how far it is.
Progress = Callable[[Iterable[AnnotatedImage], int], Iterable[AnnotatedImage]]


@dataclass(frozen=True)
class Annotations:
    """The images of one file with their persons; what training, scoring and reports read.

    Attributes:
        path: the file.
        images: in the order of the file.
        skeleton: of the persons' keypoints.
        category: id of the file's category of persons.
        common: indices of the keypoints that are also of the file's skeleton, where that is
            another; None where it is the same.
    """

    path: Path
    images: tuple[AnnotatedImage, ...]
    skeleton: Skeleton = COCO17
    category: int | str = 1
    common: tuple[int, ...] | None = None

    def of(self, ids: Iterable[int]) -> Annotations:
        """The part that is about the images of these ids."""
        keep = set(ids)
        return replace(self, images=tuple(image for image in self.images if image.id in keep))

    def in_file_ids(self, results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """COCO results that name images and the category of persons as the file does."""
        ids = {i.id: i.id if i.file_id is None else i.file_id for i in self.images}
        return [
            {**result, "image_id": ids[result["image_id"]], "category_id": self.category}
            for result in results
        ]

    @property
    def people(self) -> list[AnnotatedPerson]:
        """All persons that are no crowd regions."""
        return [person for image in self.images for person in image.people]
