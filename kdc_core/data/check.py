"""What is in a data set, what is wrong with it, and how it looks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kdc_core.data.coco import (
    AnnotatedPicture,
    Annotation,
    _person,
    decode_mask,
    read_coco,
    read_json,
)
from kdc_core.data.datasets import find_data
from kdc_core.data.pictures import PictureError, Pictures, decode_picture
from kdc_core.drawing import PALETTE, draw_people
from kdc_core.errors import KdcError
from kdc_core.files import whole_file
from kdc_core.results import Person, Prediction
from kdc_core.skeleton import Skeleton

Progress = Callable[[Iterable[AnnotatedPicture], int], Iterable[AnnotatedPicture]]

OUTSIDE_PX = 1.0  # that boxes, polygons and keypoints may lie outside the picture
FAR_SHARE = 1.0  # of its box's longer side that a keypoint may lie outside the box
SAME_BOX = 0.5  # least IoU of a person's box and its mask's
# COCO's areas in pixels, the upper limit excluded.
SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, np.inf)}
KINDS = {
    "categories": "Categories without the skeleton's keypoints",
    "bad_image": "Entries of 'images' that cannot be used",
    "bad_annotation": "Entries of 'annotations' that cannot be used",
    "duplicate_id": "Ids used twice",
    "unlisted": "Annotations whose picture is not listed",
    "missing": "Pictures that cannot be opened",
    "broken": "Pictures that cannot be decoded",
    "other_size": "Pictures of another size than annotated",
    "box": "Boxes outside the picture or without area",
    "keypoint_outside": "Keypoints outside the picture",
    "keypoint_far": "Keypoints far outside the person's box",
    "keypoint_flag": "Keypoints with another v than 0, 1 or 2",
    "num_keypoints": "num_keypoints that disagrees with the keypoints",
    "mask": "Masks that are empty or cannot be used",
    "mask_size": "Masks of another size than the picture",
    "mask_outside": "Masks outside the picture",
    "mask_box": "Masks and boxes that disagree",
}
UNUSABLE = (KeyError, TypeError, ValueError, AttributeError, OverflowError)

TILE_PX = 448  # side of one picture of the sheet
CAPTION_PX = 20
GROUND = (32, 32, 32)  # RGB behind the pictures
CROWD = (255, 255, 255)  # RGB of crowd regions
JPEG_QUALITY = 88


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        kind: one of `KINDS`.
        text: what is wrong.
        picture: name of the picture, or None.
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
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


@dataclass(frozen=True)
class Check:
    """What was found.

    Attributes:
        annotations: the file.
        images: folder or tar of the pictures.
        counts: pictures, persons and so on by name; sizes by annotated area, else the box's.
        keypoints: labelled keypoints of each type, without those of crowd regions.
        faults: in the order of `KINDS`, then of the pictures.
        pictures: those that could be read and have the annotated size, with what is usable of
            their annotations.
    """

    annotations: Path
    images: Path
    counts: dict[str, int]
    keypoints: dict[str, int]
    faults: tuple[Fault, ...]
    pictures: tuple[AnnotatedPicture, ...]


def check_data(path: str | Path, split: str, skeleton: Skeleton, progress: Progress) -> Check:
    """Read every picture and every person of a data set.

    Args:
        path, split: as for `find_data`.
        skeleton: the keypoints its persons should have.
        progress: wraps the pictures and their number, to show how far it is.

    Raises:
        AnnotationError, PictureError: annotations or pictures cannot be opened at all.
    """
    annotations, images = find_data(path, split)
    content = read_json(annotations)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    ):
        read_coco(annotations)  # raises, and says what is there instead
    checker = _Checker(content, skeleton)
    checker.read(Pictures(images), progress)
    order = list(KINDS)
    faults = sorted(checker.faults, key=lambda fault: order.index(fault.kind))
    return Check(
        annotations, images, checker.counts, checker.keypoints, tuple(faults),
        tuple(checker.pictures),
    )  # fmt: skip


class _Checker:
    """Collects the parts of a `Check` from the content of a file."""

    def __init__(self, content: dict[str, Any], skeleton: Skeleton):
        self.content = content
        self.skeleton = skeleton
        self.faults: list[Fault] = []
        self.pictures: list[AnnotatedPicture] = []
        names = ("pictures", "pictures_without_persons", "persons", "persons_with_keypoints",
                 "persons_with_masks", "crowd_regions", *SIZES)  # fmt: skip
        self.counts = dict.fromkeys(names, 0)
        self.keypoints = dict.fromkeys(skeleton.keypoints, 0)

    def read(self, pictures: Pictures, progress: Progress) -> None:
        """Check everything; the pictures one by one, each with its persons."""
        listed = self._listed()
        people = self._people(listed)
        for picture in progress(list(listed.values()), len(listed)):
            found = [self._annotation(*place, picture) for place in people[picture.id]]
            persons = tuple(person for person in found if person is not None)
            self.counts["pictures"] += 1
            self.counts["pictures_without_persons"] += all(p.crowd for p in persons)
            if self._readable(picture, pictures):
                masks = all(p.segmentation for p in persons)
                self.pictures.append(replace(picture, persons=persons, has_masks=masks))
        self._categories()

    def _listed(self) -> dict[Any, AnnotatedPicture]:
        """Pictures by id, without persons."""
        listed: dict[Any, AnnotatedPicture] = {}
        for index, entry in enumerate(self.content["images"]):
            try:
                number, name = int(entry["id"]), str(entry["file_name"])
                size = (int(entry["height"]), int(entry["width"]))
                if min(size) < 1:
                    raise ValueError(f"height and width {size}")
                known = entry["id"] in listed
            except UNUSABLE as error:
                self.faults.append(Fault("bad_image", f"image {index}: {_describe(error)}"))
                continue
            if known:
                text = f"image {index} has the id {number} of an earlier one"
                self.faults.append(Fault("duplicate_id", text, name))
            else:
                listed[entry["id"]] = AnnotatedPicture(number, name, size, (), False)
        return listed

    def _people(self, listed: dict[Any, AnnotatedPicture]) -> dict[int, list[tuple[int, Any]]]:
        """Index and entry of the persons of each listed picture."""
        people: dict[int, list[tuple[int, Any]]] = defaultdict(list)
        seen: set[int | str] = set()
        for index, entry in enumerate(self.content["annotations"]):
            if not isinstance(entry, dict):
                text = f"expected an object, got a {type(entry).__name__}"
                self.faults.append(Fault("bad_annotation", text, None, index))
                continue
            image, number = entry.get("image_id"), _id(entry)
            picture = listed.get(image) if isinstance(image, (int, float, str)) else None
            name = None if picture is None else picture.file_name
            if number is not None:
                if number in seen:
                    text = "an earlier annotation has this id"
                    self.faults.append(Fault("duplicate_id", text, name, index, number))
                seen.add(number)
            if entry.get("category_id", 1) == 1:
                if picture is None:
                    text = f"no picture has the id {image!r}"
                    self.faults.append(Fault("unlisted", text, None, index, number))
                else:
                    people[picture.id].append((index, entry))
        return people

    def _readable(self, picture: AnnotatedPicture, pictures: Pictures) -> bool:
        """Can the picture be read, and has it the annotated size?"""
        name = picture.file_name
        kind = "missing"
        try:
            data = pictures._bytes(name)
            kind = "broken"
            height, width = decode_picture(data, name).shape[:2]
        except (PictureError, ValueError) as error:  # ValueError: no possible name of a file
            self.faults.append(Fault(kind, str(error), name))
            return False
        if (height, width) != picture.size:
            text = f"is {width}x{height}, annotated as {picture.size[1]}x{picture.size[0]}"
            self.faults.append(Fault("other_size", text, name))
            return False
        return True

    def _annotation(
        self, index: int, entry: dict[str, Any], picture: AnnotatedPicture
    ) -> Annotation | None:
        """Check and count one person; None where it cannot be used."""
        where = (picture.file_name, index, _id(entry))
        try:
            person = _person(entry, self.skeleton.num_keypoints)
        except UNUSABLE as error:
            self.faults.append(Fault("bad_annotation", _describe(error), *where))
            return None
        found = [
            *_box_faults(person.box, picture.size),
            *_keypoint_faults(person, entry, picture.size, self.skeleton),
            *_mask_faults(person, picture.size),
        ]
        self.faults += [Fault(kind, text, *where) for kind, text in found]
        if any(kind in ("mask", "mask_size") for kind, _ in found):
            person = replace(person, segmentation=None)
        self._count(person, entry.get("area"))
        return person

    def _count(self, person: Annotation, area: Any) -> None:
        if person.crowd:
            self.counts["crowd_regions"] += 1
            return
        labelled = person.keypoints[:, 2] > 0
        self.counts["persons"] += 1
        self.counts["persons_with_keypoints"] += bool(labelled.any())
        self.counts["persons_with_masks"] += person.segmentation is not None
        for name, is_labelled in zip(self.keypoints, labelled.tolist(), strict=True):
            self.keypoints[name] += is_labelled
        if not isinstance(area, (int, float)):
            area = float(np.prod(person.box[2:] - person.box[:2]))
        for name, (low, high) in SIZES.items():
            self.counts[name] += low <= area < high

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
        names, expected = person.get("keypoints"), self.skeleton.num_keypoints
        number = len(names) if isinstance(names, list) else 0
        if number != expected:
            fault(
                f"category 1, {person.get('name')!r}, has {number} keypoints, the skeleton "
                f"{self.skeleton.name} has {expected}"
            )


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _id(entry: dict[str, Any]) -> int | str | None:
    number = entry.get("id")
    return number if isinstance(number, (int, str)) else None


def _box_faults(box: np.ndarray, size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    out = _out(box.reshape(2, 2), (0, 0), size[::-1]).max()
    width, height = box[2:] - box[:2]
    if width <= 0 or height <= 0:
        yield "box", f"{width:g}x{height:g} pixels"
    elif out > OUTSIDE_PX:
        yield "box", f"reaches {out:g} pixels out of the picture"


def _keypoint_faults(
    person: Annotation, entry: dict[str, Any], size: tuple[int, int], skeleton: Skeleton
) -> Iterator[tuple[str, str]]:
    points, flags = person.keypoints[:, :2], person.keypoints[:, 2]
    labelled = flags > 0

    def describe(which: np.ndarray) -> str:
        first, more = int(which.argmax()), int(which.sum()) - 1
        x, y = points[first]
        return f"{skeleton.keypoints[first]} at ({x:g}, {y:g})" + f" and {more} more" * (more > 0)

    outside = labelled & (_out(points, (0, 0), (size[1] - 1, size[0] - 1)) > OUTSIDE_PX)
    if outside.any():
        yield "keypoint_outside", describe(outside)
    side = (person.box[2:] - person.box[:2]).max()
    far = labelled & (_out(points, person.box[:2], person.box[2:]) > FAR_SHARE * side)
    far &= ~outside
    if far.any() and side > 0:
        yield "keypoint_far", describe(far)
    strange = ~np.isin(flags, (0, 1, 2))
    if strange.any():
        yield "keypoint_flag", f"{skeleton.keypoints[strange.argmax()]} has {flags[strange][0]:g}"
    number, count = entry.get("num_keypoints"), int(labelled.sum())
    # CrowdPose does not count head and neck.
    body = [name not in ("head", "neck") for name in skeleton.keypoints]
    if number is not None and number not in (count, int(labelled[body].sum())):
        yield "num_keypoints", f"num_keypoints is {number!r}, {count} are labelled"


def _mask_faults(person: Annotation, size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    mask = person.segmentation
    if mask is None:
        return
    try:
        if isinstance(mask, dict):
            given, counts = mask["size"], mask["counts"]
            if given != list(size):
                yield "mask_size", f"RLE of height and width {given}, picture {list(size)}"
                return
            # pycocotools leaves the pixels beyond the last run undefined.
            length = sum(counts if isinstance(counts, list) else _runs(counts))
            if length != size[0] * size[1]:
                raise ValueError(f"RLE of {length} pixels, {size[0] * size[1]} expected")
        pixels = decode_mask(mask, size)
        if isinstance(mask, dict):
            rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
            corners = np.array([[0, 0]])
            if len(rows):
                corners = np.array([[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]])
        else:
            polygons = [np.array(p, np.float64).reshape(-1, 2) for p in mask]
            corners = np.concatenate([p for p in polygons if len(p) > 2] or [np.zeros((1, 2))])
    except Exception as error:  # pycocotools raises bare ones
        yield "mask", _describe(error)
        return
    out = _out(corners, (0, 0), size[::-1]).max()
    if not np.isfinite(corners).all():
        yield "mask", "a coordinate is not finite"
    elif out > OUTSIDE_PX:
        yield "mask_outside", f"reaches {out:g} pixels out of the picture"
    elif not pixels.any():
        yield "mask", "has no pixel"
    box = np.concatenate((corners.min(0), corners.max(0)))
    if pixels.any() and (iou := _iou(box, person.box)) < SAME_BOX:
        yield "mask_box", f"IoU of the mask's box and the box is {iou:.2f}"


def _runs(counts: str) -> list[int]:
    """Lengths of the runs of a compressed RLE (rleFrString of pycocotools)."""
    runs: list[int] = []
    value = shift = 0
    for letter in counts:
        bits = ord(letter) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    return runs


def _out(points: np.ndarray, low: Any, high: Any) -> np.ndarray:
    """How far (..., 2) points lie outside a box, along x or y: (...)."""
    return np.maximum(np.maximum(low - points, points - high), 0).max(-1)


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    both = np.prod(np.maximum(sides, 0))
    areas = np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2])
    return float(both / max(areas - both, 1e-9))


def write_sheet(path: Path, check: Check, skeleton: Skeleton, samples: int) -> int:
    """Draw annotated pictures, spread evenly over those with persons, into one file.

    Masks are tinted, bones join labelled keypoints, persons without a mask are boxed, crowd
    regions are hatched and boxed.

    Args:
        path: .jpg or .png.
        check: of the data set.
        skeleton: for its bones.
        samples: most pictures drawn.

    Returns:
        Number of pictures drawn; nothing is written where it is 0.

    Raises:
        PictureError: a picture can no longer be read.
        KdcError: the file cannot be written.
    """
    people = [p for p in check.pictures if not all(person.crowd for person in p.persons)]
    places = np.linspace(0, len(people) - 1, min(samples, len(people))).round().astype(int)
    source = Pictures(check.images)
    tiles = [_tile(source.read(people[i].file_name), people[i], skeleton) for i in places]
    if not tiles:
        return 0
    columns = int(np.ceil(np.sqrt(len(tiles) * 4 / 3)))
    blank = np.full_like(tiles[0], GROUND)
    tiles += [blank] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    bgr = cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR)
    quality = [] if path.suffix.lower() == ".png" else [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    with whole_file(path) as part:
        if not cv2.imwrite(str(part), bgr, quality):
            raise KdcError(f"cannot write a picture to '{path}'")
    return len(places)


def _tile(image: np.ndarray, picture: AnnotatedPicture, skeleton: Skeleton) -> np.ndarray:
    """One picture with its annotations, above its name: (TILE + CAPTION, TILE, 3) uint8 RGB."""
    scale = (TILE_PX - 4) / max(picture.size)
    height, width = (max(1, round(side * scale)) for side in picture.size)
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)

    def shrink(mask: np.ndarray) -> np.ndarray:
        share = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        return share >= 0.5

    persons: list[Person] = []
    for person in picture.persons:
        if not person.crowd:
            whole = np.zeros(picture.size, bool)
            if person.segmentation:
                whole = decode_mask(person.segmentation, picture.size)
            keypoints = person.keypoints.copy()
            keypoints[:, :2] = (keypoints[:, :2] + 0.5) * scale - 0.5
            keypoints[:, 2] = keypoints[:, 2] > 0
            none = np.zeros((0, 4), np.float32)
            persons.append(
                Person(1.0, keypoints, person.box * scale, shrink(whole), (0, 0), none,
                       len(persons) + 1)
            )  # fmt: skip
    labels = np.zeros((height, width), np.uint16)
    # The smaller person is on top, as in training.
    for index in sorted(range(len(persons)), key=lambda i: -persons[i].area):
        labels[persons[index].mask] = index + 1
    drawn = draw_people(small, Prediction((height, width), tuple(persons), labels), skeleton, 0.5)
    for index, shown in enumerate(persons):
        if not shown.area:
            _draw_box(drawn, shown.box, PALETTE[index % len(PALETTE)].tolist())
    for region in picture.persons:
        if region.crowd:
            given = region.segmentation
            mask = shrink(decode_mask(given, picture.size)) if given else None
            _draw_crowd(drawn, mask, region.box * scale)

    tile = np.full((TILE_PX + CAPTION_PX, TILE_PX, 3), GROUND, np.uint8)
    top, left = (TILE_PX - height) // 2, (TILE_PX - width) // 2
    tile[top : top + height, left : left + width] = drawn
    name = picture.file_name
    while len(name) > 1 and _text_width(name) > TILE_PX - 8:
        name = name[1:]  # the end of a path says more than its beginning
    cv2.putText(tile, name, (4, TILE_PX + CAPTION_PX - 6), *_FONT, (230, 230, 230), 1, cv2.LINE_AA)
    return tile


_FONT = (cv2.FONT_HERSHEY_SIMPLEX, 0.45)


def _text_width(text: str) -> int:
    return int(cv2.getTextSize(text, *_FONT, 1)[0][0])


def _draw_crowd(canvas: np.ndarray, mask: np.ndarray | None, box: np.ndarray) -> None:
    """Hatch a region, its box where it has no mask, and outline the box."""
    height, width = canvas.shape[:2]
    if mask is None:
        x0, y0, x1, y1 = (max(0, round(float(v))) for v in box)
        mask = np.zeros((height, width), bool)
        mask[y0:y1, x0:x1] = True
    stripes = np.add.outer(np.arange(height), np.arange(width)) % 8 < 1
    canvas[mask & stripes] = CROWD
    _draw_box(canvas, box, CROWD)


def _draw_box(canvas: np.ndarray, box: np.ndarray, color: Sequence[int]) -> None:
    x0, y0, x1, y1 = (round(float(v)) for v in box.clip(-1e4, 1e4))
    cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), tuple(color), 1)
