"""Entries of a COCO file: what each must hold, and how what other tools write is read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, FiniteFloat, InstanceOf, ValidationError, model_validator

# OpenCV reads no more of an image; pycocotools counts pixels in 32 bits.
LARGEST_SIDE = 2**20
LARGEST_AREA = 2**30
FARTHEST_PX = 1e6  # that a keypoint or box may lie from the image's corner

Id = int | str
Pixels = Annotated[FiniteFloat, Field(ge=-FARTHEST_PX, le=FARTHEST_PX)]
Entry = TypeVar("Entry", bound=BaseModel)

# What is read as if it were written as COCO does, and how that is told.
NOTES = {
    "numbers": "numbers written as text or of another type, read as what they say",
    "nested": "points in lists of their own, read as one row",
    "null": "null, read as if nothing were given",
    "ids": "annotation ids that are missing, 0, repeated or no whole numbers; numbered anew",
    "area": "no area, computed from the mask, else .53 of the box",
    "twice": "images listed twice: each entry lacks the people of the other",
    "box": "boxes without area, taken of mask and keypoints",
    "category": "no category, taken for persons",
    "other": "a category that is not listed; left out",
    "polygons": "polygons of fewer than three points, left out",
}


@dataclass
class Notes:
    """How often something of each kind was read otherwise than it is written.

    Attributes:
        counts: entries by kind of `NOTES`.
        first: the first of them.
    """

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    _last: dict[str, str] = field(default_factory=dict, repr=False)

    def add(self, kind: str, place: str, number: object) -> None:
        """Count an entry, which may be told of several times in a row.

        Args:
            kind: of `NOTES`.
            place: of the entry, e.g. "image 3".
            number: its id in the file.
        """
        if self._last.get(kind) == place:
            return
        self._last[kind] = place
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.first.setdefault(kind, f"{place} (id {number!r})")

    def lines(self) -> list[str]:
        """A line of each kind."""
        return [
            f"{NOTES[kind]}: {count}, first {self.first[kind]}"
            for kind, count in self.counts.items()
        ]


class CategoryEntry(BaseModel):
    """Of `categories`.

    Attributes:
        id, name: what annotations and people call it.
        supercategory: the name of a category that holds it.
        keypoints: their names.
    """

    id: Id
    name: str = ""
    supercategory: str = ""
    keypoints: list[str] = []


class ImageEntry(BaseModel):
    """Of `images`.

    Attributes:
        id: what annotations call it.
        file_name: in the folder or tar of images.
        height, width: pixels.
        crowdIndex: of CrowdPose.
    """

    id: Id
    file_name: InstanceOf[str]  # a name that is not UTF-8 has halves of surrogates, no `str` here
    height: int = Field(ge=1, le=LARGEST_SIDE)
    width: int = Field(ge=1, le=LARGEST_SIDE)
    crowdIndex: FiniteFloat | None = None  # noqa: N815 -- the file's name for it

    @model_validator(mode="after")
    def _can_be_read(self) -> ImageEntry:
        if self.height * self.width > LARGEST_AREA:
            raise ValueError(f"an image has at most {LARGEST_AREA} pixels")
        return self


class PersonEntry(BaseModel):
    """Of `annotations`, of the category of persons.

    Attributes:
        id: its own, whatever it is.
        image_id: of its image.
        bbox: left, top, width, height, pixels.
        keypoints: x, y, v of each.
        num_keypoints: how many are labelled.
        iscrowd: a region of many people.
        area: of its mask, pixels.
        segmentation: read by `kdc_core.data.masks.read_mask`.
    """

    id: Any = None
    image_id: Id
    bbox: list[Pixels] = Field(min_length=4, max_length=4)
    keypoints: list[Pixels] = []
    num_keypoints: int = Field(-1, ge=0, le=1000)  # -1, which no file may say: nothing said
    iscrowd: Literal[0, 1] | bool = 0
    area: FiniteFloat | None = Field(None, ge=0)
    segmentation: Any = None


def read_entry(kind: type[Entry], raw: object, notes: Notes, place: str) -> Entry:
    """Read an entry as COCO writes it, else as other tools do.

    Args:
        kind: its class.
        raw: of the file.
        notes: takes what is otherwise than COCO writes it.
        place: of the entry, e.g. "image 3".

    Raises:
        ValidationError: it cannot be used; `described` says why.
    """
    try:
        return kind.model_validate(raw, strict=True)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False)
    entry = kind.model_validate(_plain(raw))
    for note in sorted({_kind(one["input"], one["loc"]) for one in wrong}):
        notes.add(note, place, getattr(entry, "id", None))
    return entry


def _plain(raw: object) -> object:
    """An entry without nulls, its keypoints in one row."""
    if not isinstance(raw, dict):
        return raw
    given = {name: value for name, value in raw.items() if value is not None}
    points = given.get("keypoints")
    if isinstance(points, list) and points and all(isinstance(point, list) for point in points):
        given["keypoints"] = [number for point in points for number in point]
    return given


def _kind(value: object, place: tuple[int | str, ...]) -> str:
    """Which of `NOTES` says that a value is otherwise than COCO writes it."""
    if value is None:
        return "null"
    return "nested" if place[0] == "keypoints" and isinstance(value, list) else "numbers"


def described(error: ValidationError) -> str:
    """The first thing that is wrong with an entry: where, what is expected and what is there."""
    first, more = error.errors(include_url=False)[0], error.error_count() - 1
    place = ".".join(str(part) for part in first["loc"] if part != "literal[0,1]")
    given = repr(first["input"]) if first["type"] != "missing" else "nothing"
    text = f"{place or 'entry'}: {first['msg']}, got {given[:60]}"
    return text + f", and {more} more" * (more > 0)


def as_id(given: object) -> Id | None:
    """An id as it is compared: text of a whole number is that number. None = it can be none."""
    if type(given) is int:
        return given
    if isinstance(given, str):
        return int(given) if re.fullmatch(r"\s*-?[0-9]{1,18}\s*", given) else given
    return int(given) if isinstance(given, float) and given.is_integer() else None
