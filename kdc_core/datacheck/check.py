"""What is in a data set, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdc_core.codec.skeleton import Skeleton
from kdc_core.data.annotations import SIZES, AnnotatedImage, AnnotatedPerson, Progress
from kdc_core.data.datasets import find_data
from kdc_core.data.entries import Notes
from kdc_core.data.faults import KINDS, Fault, box_faults, keypoint_faults, mask_faults
from kdc_core.data.headers import size_told
from kdc_core.data.images import ImageError, Images, decode_image
from kdc_core.data.reader import Reading
from kdc_core.data.reading import read


@dataclass(frozen=True)
class Check:
    """What was found.

    Attributes:
        annotations: the file.
        images: folder or tar of the images.
        counts: images, persons and so on by name; sizes by area.
        keypoints: labelled keypoints of each type, without those of crowd regions.
        faults: in the order of `KINDS`, then of the images.
        notes: what was read otherwise than it is written.
        readable: the images that could be read and have the annotated size, with what is usable of
            their annotations.
    """

    annotations: Path
    images: Path
    counts: dict[str, int]
    keypoints: dict[str, int]
    faults: tuple[Fault, ...]
    notes: Notes
    readable: tuple[AnnotatedImage, ...]


def check_data(
    path: str | Path,
    split: str,
    skeleton: Skeleton,
    progress: Progress,
    images: str | Path | None = None,
    category: str | None = None,
) -> Check:
    """Read every image and every person of a data set.

    Args:
        path, split, images: as for `find_data`.
        skeleton: the keypoints its persons should have.
        progress: wraps the images and their number, to show how far it is.
        category: as for `read_annotations`.

    Raises:
        AnnotationError, ImageError: annotations or images cannot be opened at all.
    """
    file, folder = find_data(path, split, images)
    checker = _Checker(read(file, skeleton, category))
    checker.check(Images(folder), progress)
    order = list(KINDS)
    faults = sorted(checker.faults, key=lambda fault: order.index(fault.kind))
    return Check(
        file,
        folder,
        checker.counts,
        checker.keypoints,
        tuple(faults),
        checker.reading.notes,
        tuple(checker.readable),
    )


class _Checker:
    """Collects the parts of a `Check` from what was read of a file."""

    def __init__(self, reading: Reading):
        self.reading = reading
        self.faults = [*reading.refused, *reading.left_out]
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
        self.keypoints = dict.fromkeys(reading.keypoints, 0)

    def check(self, images: Images, progress: Progress) -> None:
        """Check everything; the images one by one, each with its persons."""
        listed = self.reading.annotations.images
        for annotated in progress(listed, len(listed)):
            readable = self._readable(annotated, images)
            for person in annotated.persons:
                self._check_person(person, annotated, readable)
                self._count(person)
            self.counts["pictures"] += 1
            self.counts["pictures_without_persons"] += not annotated.people
            if readable:
                self.readable.append(annotated)
        if not self.counts["persons_with_keypoints"]:
            self.faults.append(Fault("categories", "no person has a labelled keypoint"))

    def _readable(self, annotated: AnnotatedImage, images: Images) -> bool:
        """Can the image be read, and has it the annotated size?"""
        name = annotated.file_name
        kind = "missing"
        try:
            data = images.read_bytes(name)
            kind = "broken"
            shape = decode_image(data, name).shape
        except ImageError as error:
            self.faults.append(Fault(kind, str(error), name))
            return False
        size = (shape[0], shape[1])
        if size != annotated.size:
            text = size_told(annotated.size, size, data)
            self.faults.append(Fault("other_size", text, name))
            return False
        return True

    def _check_person(
        self, person: AnnotatedPerson, annotated: AnnotatedImage, readable: bool
    ) -> None:
        """Check one person; the pixels of its mask where the image has as many."""
        found = [
            *box_faults(person.box, annotated.size),
            *keypoint_faults(person, annotated.size, self.reading.keypoints),
            *(mask_faults(person, annotated.size) if readable else ()),
        ]
        where = (annotated.file_name, *self.reading.places[person.id])
        self.faults += [Fault(kind, text, *where) for kind, text in found]

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
