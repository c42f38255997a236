"""What is in a data set, and what is wrong with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kdc_core.codec.skeleton import Skeleton
from kdc_core.data.annotations import AnnotatedImage, AnnotatedPerson
from kdc_core.data.datasets import find_data
from kdc_core.data.faults import (
    KINDS,
    Fault,
    box_faults,
    keypoint_faults,
    mask_faults,
)
from kdc_core.data.images import ImageError, Images, decode_image
from kdc_core.data.masks import describe
from kdc_core.data.reading import (
    MALFORMED,
    other_keypoints,
    parse_image,
    parse_person,
    read_entries,
)

Progress = Callable[[Iterable[AnnotatedImage], int], Iterable[AnnotatedImage]]

# COCO's areas in pixels, the upper limit excluded.
SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, np.inf)}


@dataclass(frozen=True)
class Check:
    """What was found.

    Attributes:
        annotations: the file.
        images: folder or tar of the images.
        counts: images, persons and so on by name; sizes by area.
        keypoints: labelled keypoints of each type, without those of crowd regions.
        faults: in the order of `KINDS`, then of the images.
        readable: the images that could be read and have the annotated size, with what is usable of
            their annotations.
    """

    annotations: Path
    images: Path
    counts: dict[str, int]
    keypoints: dict[str, int]
    faults: tuple[Fault, ...]
    readable: tuple[AnnotatedImage, ...]


def check_data(path: str | Path, split: str, skeleton: Skeleton, progress: Progress) -> Check:
    """Read every image and every person of a data set.

    Args:
        path, split: as for `find_data`.
        skeleton: the keypoints its persons should have.
        progress: wraps the images and their number, to show how far it is.

    Raises:
        AnnotationError, ImageError: annotations or images cannot be opened at all.
    """
    annotations, images = find_data(path, split)
    content = read_entries(annotations)
    checker = _Checker(content, skeleton)
    checker.read(Images(images), progress)
    order = list(KINDS)
    faults = sorted(checker.faults, key=lambda fault: order.index(fault.kind))
    return Check(
        annotations,
        images,
        checker.counts,
        checker.keypoints,
        tuple(faults),
        tuple(checker.readable),
    )


class _Checker:
    """Collects the parts of a `Check` from the content of a file."""

    def __init__(self, content: dict[str, Any], skeleton: Skeleton):
        self.content = content
        self.skeleton = skeleton
        self.faults: list[Fault] = []
        self.readable: list[AnnotatedImage] = []
        names = (
            "pictures",
            "pictures_without_persons",
            "persons",
            "persons_with_keypoints",
            "persons_with_masks",
            "crowd_regions",
            *SIZES,
        )
        self.counts = dict.fromkeys(names, 0)
        self.keypoints = dict.fromkeys(skeleton.keypoints, 0)

    def read(self, images: Images, progress: Progress) -> None:
        """Check everything; the images one by one, each with its persons."""
        listed = self._listed()
        people = self._people(listed)
        for annotated in progress(list(listed.values()), len(listed)):
            found = [self._annotation(*place, annotated) for place in people[annotated.id]]
            persons = tuple(person for person in found if person is not None)
            self.counts["pictures"] += 1
            self.counts["pictures_without_persons"] += all(p.crowd for p in persons)
            if self._readable(annotated, images):
                self.readable.append(replace(annotated, persons=persons))
        self._categories()

    def _listed(self) -> dict[Any, AnnotatedImage]:
        """Images by id, without persons."""
        listed: dict[Any, AnnotatedImage] = {}
        for index, entry in enumerate(self.content["images"]):
            try:
                image = parse_image(entry)
                known = entry["id"] in listed
            except MALFORMED as error:
                self.faults.append(Fault("bad_image", f"image {index}: {describe(error)}"))
                continue
            if known:
                text = f"image {index} has the id {image.id} of an earlier one"
                self.faults.append(Fault("duplicate_id", text, image.file_name))
            else:
                listed[entry["id"]] = image
        return listed

    def _people(self, listed: dict[Any, AnnotatedImage]) -> dict[int, list[tuple[int, Any]]]:
        """Index and entry of the persons of each listed image."""
        people: dict[int, list[tuple[int, Any]]] = defaultdict(list)
        seen: set[int | str] = set()
        for index, entry in enumerate(self.content["annotations"]):
            if not isinstance(entry, dict):
                text = f"expected an object, got a {type(entry).__name__}"
                self.faults.append(Fault("bad_annotation", text, None, index))
                continue
            image, number = entry.get("image_id"), _id(entry)
            annotated = listed.get(image) if isinstance(image, (int, float, str)) else None
            name = None if annotated is None else annotated.file_name
            if number is not None:
                if number in seen:
                    text = "an earlier annotation has this id"
                    self.faults.append(Fault("duplicate_id", text, name, index, number))
                seen.add(number)
            if entry.get("category_id", 1) == 1:
                if annotated is None:
                    text = f"no image has the id {image!r}"
                    self.faults.append(Fault("unlisted", text, None, index, number))
                else:
                    people[annotated.id].append((index, entry))
        return people

    def _readable(self, annotated: AnnotatedImage, images: Images) -> bool:
        """Can the image be read, and has it the annotated size?"""
        name = annotated.file_name
        kind = "missing"
        try:
            data = images.read_bytes(name)
            kind = "broken"
            height, width = decode_image(data, name).shape[:2]
        except ImageError as error:
            self.faults.append(Fault(kind, str(error), name))
            return False
        if (height, width) != annotated.size:
            text = f"is {width}x{height}, annotated as {annotated.size[1]}x{annotated.size[0]}"
            self.faults.append(Fault("other_size", text, name))
            return False
        return True

    def _annotation(
        self, index: int, entry: dict[str, Any], annotated: AnnotatedImage
    ) -> AnnotatedPerson | None:
        """Check and count one person; None where it cannot be used."""
        where = (annotated.file_name, index, _id(entry))
        try:
            person = parse_person(entry, self.skeleton, index + 1)
        except MALFORMED as error:
            self.faults.append(Fault("bad_annotation", describe(error), *where))
            return None
        found = [
            *box_faults(person.box, annotated.size),
            *keypoint_faults(person, entry, annotated.size, self.skeleton),
            *mask_faults(person, annotated.size),
        ]
        self.faults += [Fault(kind, text, *where) for kind, text in found]
        if any(kind in ("mask", "mask_size") for kind, _ in found):
            person = replace(person, segmentation=None)
        self._count(person)
        return person

    def _count(self, person: AnnotatedPerson) -> None:
        if person.crowd:
            self.counts["crowd_regions"] += 1
            return
        labelled = person.labelled
        self.counts["persons"] += 1
        self.counts["persons_with_keypoints"] += bool(labelled.any())
        self.counts["persons_with_masks"] += person.segmentation is not None
        for name, is_labelled in zip(self.keypoints, labelled.tolist(), strict=True):
            self.keypoints[name] += is_labelled
        for name, (low, high) in SIZES.items():
            self.counts[name] += low <= person.area < high

    def _categories(self) -> None:
        def fault(text: str) -> None:
            self.faults.append(Fault("categories", text))

        if not self.counts["persons_with_keypoints"]:
            fault("no person has a labelled keypoint")
        entries = self.content.get("categories")
        entries = entries if isinstance(entries, list) else []
        person = next((c for c in entries if isinstance(c, dict) and c.get("id") == 1), None)
        if person is None:
            fault("no category has the id 1, that of persons")
            return
        if told := other_keypoints(self.content, self.skeleton):
            fault(told)
        elif not (isinstance(person.get("keypoints"), list) and person["keypoints"]):
            fault("category 1, that of persons, names no keypoints")


def _id(entry: dict[str, Any]) -> int | str | None:
    number = entry.get("id")
    return number if isinstance(number, (int, str)) else None
