"""What is in a data set, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdc_core.codec.skeleton import Skeleton
from kdc_core.data.annotations import SIZES, AnnotatedImage, Annotations, Progress
from kdc_core.data.datasets import find_data
from kdc_core.data.entries import Notes
from kdc_core.data.faults import KINDS, Fault, box_faults, keypoint_faults, mask_faults
from kdc_core.data.headers import size_told
from kdc_core.data.images import ImageError, Images, decode_image
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
    reading = read(file, skeleton, category)
    source, listed = Images(folder), reading.annotations.images
    faults, readable = [*reading.refused, *reading.left_out], []
    for annotated in progress(listed, len(listed)):
        unreadable = _image_faults(annotated, source)
        faults += unreadable
        if not unreadable:
            readable.append(annotated)
        for person in annotated.annotations:
            found = [
                *box_faults(person.box, annotated.size),
                *keypoint_faults(person, annotated.size, reading.keypoints),
                # The pixels of its mask only where the image has as many.
                *(() if unreadable else mask_faults(person, annotated.size)),
            ]
            where = (annotated.file_name, *reading.places[person.id])
            faults += [Fault(kind, text, *where) for kind, text in found]
    counts = _counts(reading.annotations)
    if not counts["persons_with_keypoints"]:
        faults.append(Fault("categories", "no person has a labelled keypoint"))
    order = list(KINDS)
    faults.sort(key=lambda fault: order.index(fault.kind))
    keypoints = dict.fromkeys(reading.keypoints, 0)
    for person in reading.annotations.people:
        # Not of the dict's names: a category may have one twice.
        for name, there in zip(reading.keypoints, person.labelled.tolist(), strict=True):
            keypoints[name] += there
    return Check(file, folder, counts, keypoints, tuple(faults), reading.notes, tuple(readable))


def _image_faults(annotated: AnnotatedImage, images: Images) -> list[Fault]:
    """What is wrong with an image: it cannot be read, or has not the annotated size."""
    name = annotated.file_name
    kind = "missing"
    try:
        data = images.read_bytes(name)
        kind = "broken"
        height, width = decode_image(data, name).shape[:2]
    except ImageError as error:
        return [Fault(kind, str(error), name)]
    if (height, width) != annotated.size:
        return [Fault("other_size", size_told(annotated.size, (height, width), data), name)]
    return []


def _counts(annotations: Annotations) -> dict[str, int]:
    """Images and persons by name, the sizes by area."""
    images, people = annotations.images, annotations.people
    return {
        "pictures": len(images),
        "pictures_without_persons": sum(not image.people for image in images),
        "persons": len(people),
        "persons_with_keypoints": sum(bool(person.labelled.any()) for person in people),
        "persons_with_masks": sum(person.segmentation is not None for person in people),
        "crowd_regions": sum(person.crowd for image in images for person in image.annotations),
        **{
            name: sum(low <= person.area < high for person in people)
            for name, (low, high) in SIZES.items()
        },
    }
