"""What can be wrong with one annotated person, and how a fault is told."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdc_core.data.annotations import AnnotatedPerson, Annotations
from kdc_core.data.masks import decode_mask
from kdc_core.errors import for_terminal

log = logging.getLogger(__name__)

OUTSIDE_PX = 1.0  # that boxes, polygons and keypoints may lie outside the image
FAR_FRACTION = 1.0  # of its box's longer side that a keypoint may lie outside the box
SAME_BOX = 0.5  # least IoU of a person's box and its mask's
SHOWN = 20  # faults of one kind that are listed
NO_PIXEL = "has no pixel"
KINDS = {
    "categories": "Categories without the skeleton's keypoints",
    "bad_image": "Entries of 'images' that cannot be used",
    "bad_annotation": "Entries of 'annotations' that cannot be used",
    "duplicate_id": "Ids of images used twice",
    "unlisted": "Annotations whose image is not listed",
    "missing": "Images that cannot be opened",
    "broken": "Images that cannot be decoded",
    "other_size": "Images of another size than annotated",
    "box": "Boxes outside the image or without area",
    "keypoint_outside": "Keypoints outside the image",
    "keypoint_far": "Keypoints far outside the person's box",
    "keypoint_flag": "Keypoints with another v than 0, 1 or 2",
    "num_keypoints": "num_keypoints that disagrees with the keypoints",
    "mask": "Masks that are empty or cannot be used",
    "mask_size": "Masks of another size than the image",
    "mask_outside": "Masks outside the image",
    "mask_box": "Masks and boxes that disagree",
}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        kind: one of `KINDS`.
        text: what is wrong.
        picture: name of the image, or None.
        index: place in `annotations` of the file, or None.
        id: id of the annotation, or None.
    """

    kind: str
    text: str
    picture: str | None = None
    index: int | None = None
    id: int | str | None = None

    def __str__(self) -> str:
        where = [] if self.picture is None else [repr(self.picture)]
        if self.index is not None:
            number = "" if self.id is None else f" (id {self.id!r})"
            where.append(f"annotation {self.index}{number}")
        text = ": ".join([", ".join(where), self.text] if where else [self.text])
        # Names and ids come from the file: nothing in them reaches the terminal but characters.
        return for_terminal(text).replace("\n", "\\n")


def listed(faults: Sequence[Fault]) -> list[str]:
    """Lines that say what is wrong: of each kind the number, and the first of them."""
    lines = []
    for title, same in _by_kind(faults):
        lines += [f"{title}: {len(same)}", *(f"  {fault}" for fault in same[:SHOWN])]
        if len(same) > SHOWN:
            lines.append(f"  and {len(same) - SHOWN} more")
    return lines


def counted(faults: Sequence[Fault]) -> list[str]:
    """A line of each kind: the number, and the first of them."""
    return [f"{title}: {len(same)}, first {same[0]}" for title, same in _by_kind(faults)]


def _by_kind(faults: Sequence[Fault]) -> Iterator[tuple[str, list[Fault]]]:
    """Titles of the kinds that are there, in the order of `KINDS`, and the faults of each."""
    for kind, title in KINDS.items():
        if same := [fault for fault in faults if fault.kind == kind]:
            yield title, same


def box_faults(box: np.ndarray, size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    """Kinds and texts of what is wrong with a box x0, y0, x1, y1 in an image of a size."""
    out = _out(box.reshape(2, 2), (0, 0), size[::-1]).max()
    width, height = box[2:] - box[:2]
    if width <= 0 or height <= 0:
        yield "box", f"{width:g}x{height:g} pixels"
    elif out > OUTSIDE_PX:
        yield "box", f"reaches {out:g} pixels out of the image"


def keypoint_faults(
    person: AnnotatedPerson, size: tuple[int, int], names: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Kinds and texts of what is wrong with a person's keypoints, which have these names."""
    points, flags = person.keypoints[:, :2], person.keypoints[:, 2]
    labelled = flags > 0

    def told(which: np.ndarray) -> str:
        first, more = int(which.argmax()), int(which.sum()) - 1
        x, y = points[first]
        return f"{names[first]} at ({x:g}, {y:g})" + f" and {more} more" * (more > 0)

    outside = labelled & (_out(points, (0, 0), (size[1] - 1, size[0] - 1)) > OUTSIDE_PX)
    if outside.any():
        yield "keypoint_outside", told(outside)
    side = (person.box[2:] - person.box[:2]).max()
    far = labelled & (_out(points, person.box[:2], person.box[2:]) > FAR_FRACTION * side)
    far &= ~outside
    if far.any() and side > 0:
        yield "keypoint_far", told(far)
    strange = ~np.isin(flags, (0, 1, 2))
    if strange.any():
        yield "keypoint_flag", f"{names[int(strange.argmax())]} has {flags[strange][0]:g}"
    number, count = person.num_keypoints, int(labelled.sum())
    # CrowdPose does not count head and neck.
    body = [name not in ("head", "neck") for name in names]
    if number not in (count, int(labelled[body].sum())):
        yield "num_keypoints", f"num_keypoints is {number}, {count} are labelled"


def warn_outside(annotations: Annotations) -> None:
    """Log how many persons have a box or keypoint outside their image; they stay in use."""
    found = [(image, person) for image in annotations.images for person in image.people]
    if not found:
        return
    size = np.array([image.size[::-1] for image, _ in found])[:, None]
    boxes = np.array([person.box.reshape(2, 2) for _, person in found])
    keypoints = np.array([person.keypoints for _, person in found])
    out = (_out(boxes, 0, size) > OUTSIDE_PX).any(1)
    far = _out(keypoints[..., :2], 0, size - 1) > OUTSIDE_PX
    out |= (far & (keypoints[..., 2] > 0)).any(1)
    if out.any():
        log.warning(
            "'%s': persons with a box or keypoint out of their image: %d, first in '%s'; "
            "`kdc data check` lists them",
            annotations.path,
            out.sum(),
            found[out.argmax()][0].file_name,
        )


def mask_faults(person: AnnotatedPerson, size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    """Kinds and texts of what is wrong with a person's mask in an image (height, width)."""
    if person.segmentation is None:
        return
    pixels = decode_mask(person.segmentation, size)
    if not pixels.any():
        yield "mask", NO_PIXEL
        return
    if isinstance(person.segmentation, dict):
        rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
        corners = np.array([[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]])
    else:
        corners = np.concatenate(list(person.segmentation)).reshape(-1, 2)
    out = _out(corners, (0, 0), size[::-1]).max()
    if out > OUTSIDE_PX:
        yield "mask_outside", f"reaches {out:g} pixels out of the image"
    box = np.concatenate((corners.min(0), corners.max(0)))
    if (iou := _iou(box, person.box)) < SAME_BOX:
        yield "mask_box", f"IoU of the mask's box and the box is {iou:.2f}"


def _out(points: np.ndarray, low: Any, high: Any) -> np.ndarray:
    """How far (..., 2) points lie outside a box, along x or y: (...)."""
    return np.maximum(np.maximum(low - points, points - high), 0).max(-1)


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    both = np.prod(np.maximum(sides, 0))
    areas = np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2])
    return float(both / max(areas - both, 1e-9))
