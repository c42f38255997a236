"""The entries of a COCO file, one by one: what can be used, and what is wrong with the others."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from pydantic import ValidationError

from kdc_core.data.annotations import (
    BOX_FRACTION,
    AnnotatedImage,
    AnnotatedPerson,
    AnnotationError,
    Annotations,
)
from kdc_core.data.entries import (
    Id,
    ImageEntry,
    Notes,
    PersonEntry,
    as_id,
    described,
    read_entry,
)
from kdc_core.data.faults import NO_PIXEL, Fault
from kdc_core.data.masks import OtherSizeError, Segmentation, mask_area, mask_box, read_mask

LARGEST_ID = 2**63 - 1  # that the scorer takes


@dataclass
class Reading:
    """What came of reading a file.

    Attributes:
        annotations: what can be used of it.
        keypoints: names of its persons' keypoints, which may be others than the skeleton's.
        notes: what was read otherwise than it is written.
        refused: faults with which it cannot be used.
        left_out: faults of what it can be used without.
        places: index and id in the file's `annotations`, by `AnnotatedPerson.id`.
    """

    annotations: Annotations
    keypoints: tuple[str, ...]
    notes: Notes = field(default_factory=Notes)
    refused: list[Fault] = field(default_factory=list)
    left_out: list[Fault] = field(default_factory=list)
    places: dict[int, tuple[int, Id | None]] = field(default_factory=dict)


class Reader:
    """Fills a Reading with the entries of a file: images, then persons.

    Args:
        found: to fill.
    """

    def __init__(self, found: Reading):
        self.found = found
        self._images: dict[Id | None, ImageEntry] = {}  # by id in the file
        self._names: set[str] = set()
        self._persons: dict[Id | None, list[AnnotatedPerson]] = defaultdict(list)

    def read_images(self, entries: list[Any]) -> None:
        """Read `images` of the file."""
        for index, raw in enumerate(entries):
            place = f"image {index}"
            try:
                entry = read_entry(ImageEntry, raw, self.found.notes, place)
            except ValidationError as error:
                self.found.refused.append(Fault("bad_image", f"{place}: {described(error)}"))
                continue
            key = as_id(entry.id)
            if key in self._images:
                text = f"{place} has the id {entry.id!r} of '{self._images[key].file_name}'"
                self.found.refused.append(Fault("duplicate_id", text, entry.file_name))
                continue
            if key != entry.id:
                self.found.notes.add("numbers", place, entry.id)
            if entry.file_name in self._names:
                self.found.notes.add("twice", place, entry.id)
            self._names.add(entry.file_name)
            self._images[key] = entry

    def read_persons(self, entries: list[Any], categories: set[Id | None]) -> None:
        """Read those of `annotations` that are of the category of persons.

        Args:
            entries: of the file; emptied, so that a large file is in memory only once.
            categories: ids of all categories.
        """
        persons = deque(
            (index, raw)
            for index, raw in enumerate(entries)
            if self._is_person(index, raw, categories)
        )
        entries.clear()
        for number in self._numbers([(index, raw.get("id")) for index, raw in persons]):
            index, raw = persons.popleft()
            self.found.places[number] = index, _shown(raw.get("id"))
            self._read_person(raw, number)

    def finish(self) -> None:
        """Put the images with their persons into the annotations."""
        keys = list(self._images)
        ids = [key for key in keys if isinstance(key, int) and 0 <= key <= LARGEST_ID]
        if len(ids) < len(keys):
            ids = list(range(1, len(keys) + 1))
        images = tuple(
            AnnotatedImage(
                number,
                image.file_name,
                (image.height, image.width),
                tuple(self._persons.get(key, ())),
                image.crowdIndex,
                image.id,
            )
            for number, (key, image) in zip(ids, self._images.items(), strict=True)
        )
        self.found.annotations = replace(self.found.annotations, images=images)

    def _is_person(self, index: int, raw: Any, categories: set[Id | None]) -> bool:
        if not isinstance(raw, dict):
            text = f"expected an object, got a {type(raw).__name__}"
            self.found.refused.append(Fault("bad_annotation", text, None, index))
            return False
        given, number = raw.get("category_id"), _shown(raw.get("id"))
        if given is None:
            self.found.notes.add("category", f"annotation {index}", number)
            return True
        category = as_id(given)
        if category not in categories:
            self.found.notes.add("other", f"annotation {index}", number)
        return category is not None and category == as_id(self.found.annotations.category)

    def _numbers(self, ids: list[tuple[int, Any]]) -> list[int]:
        """Ids of persons: those of the file if they are whole numbers from 1, one each."""
        numbers: dict[int, None] = {}
        for index, given in ids:
            number = as_id(given)
            if isinstance(number, int) and 0 < number <= LARGEST_ID and number not in numbers:
                numbers[number] = None
            else:
                self.found.notes.add("ids", f"annotation {index}", _shown(given))
        return list(numbers) if len(numbers) == len(ids) else [index + 1 for index, _ in ids]

    def _read_person(self, raw: dict[str, Any], number: int) -> None:
        index, shown = self.found.places[number]
        place = f"annotation {index}"
        try:
            entry = read_entry(PersonEntry, raw, self.found.notes, place)
        except ValidationError as error:
            image = self._images.get(as_id(raw.get("image_id")))
            name = None if image is None else image.file_name
            self.found.refused.append(
                Fault("bad_annotation", described(error), name, index, shown)
            )
            return
        key = as_id(entry.image_id)
        if key != entry.image_id:
            self.found.notes.add("numbers", place, shown)
        image = self._images.get(key)
        if image is None:
            text = f"no image has the id {entry.image_id!r}"
            self.found.left_out.append(Fault("unlisted", text, None, index, shown))
            return
        where = (image.file_name, index, shown)
        note = partial(self.found.notes.add, place=place, number=shown)
        mask, size = None, (image.height, image.width)
        try:
            mask = read_mask(entry.segmentation, size, note)
            if mask is None and entry.segmentation:
                self.found.left_out.append(Fault("mask", NO_PIXEL, *where))
        except OtherSizeError as error:
            self.found.refused.append(Fault("mask_size", str(error), *where))
        except AnnotationError as error:
            self.found.refused.append(Fault("mask", str(error), *where))
        try:
            person = make_person(entry, number, len(self.found.keypoints), mask, size, note)
            self._persons[key].append(person)
        except AnnotationError as error:
            self.found.refused.append(Fault("bad_annotation", str(error), *where))


def make_person(
    entry: PersonEntry,
    number: int,
    keypoints: int,
    mask: Segmentation | None,
    size: tuple[int, int],
    note: Callable[[str], None],
) -> AnnotatedPerson:
    """A person of an entry.

    Args:
        entry: of the file.
        number: its id.
        keypoints: how many it should have.
        mask: of `read_mask`.
        size: (height, width) of the image.
        note: takes kinds of `NOTES`.

    Raises:
        AnnotationError: it cannot be used.
    """
    given = entry.keypoints or [0.0] * (3 * keypoints)
    if len(given) != 3 * keypoints:
        raise AnnotationError(
            f"expected x, y and v of {keypoints} keypoints, got {len(given)} numbers"
        )
    left, top, width, height = entry.bbox
    box = np.array([left, top, left + width, top + height], np.float32)
    points = np.array(given, np.float32).reshape(keypoints, 3)
    if min(width, height) <= 0 and (around := _around(points, mask_box(mask, size))) is not None:
        note("box")
        box = around
        width, height = (float(side) for side in box[2:] - box[:2])
    area = entry.area
    if not area:
        note("area")
        area = mask_area(mask, size) or BOX_FRACTION * max(width, 0.0) * max(height, 0.0)
    labelled = entry.num_keypoints
    if labelled < 0:
        labelled = int((points[:, 2] > 0).sum())
    crowd = bool(entry.iscrowd)
    return AnnotatedPerson(number, points, box, mask, crowd, area, labelled)


def _around(points: np.ndarray, mask: np.ndarray | None) -> np.ndarray | None:
    """The box around labelled keypoints (K, 3) and that of a mask; None where there is neither."""
    corners = points[points[:, 2] > 0, :2]
    if mask is not None:
        corners = np.concatenate((corners, mask.reshape(2, 2)))
    if not len(corners):
        return None
    return np.concatenate((corners.min(0), corners.max(0))).astype(np.float32)


def _shown(given: Any) -> Id | None:
    """An id as messages name it."""
    return given if isinstance(given, (int, str)) else None
