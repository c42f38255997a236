"""Annotation files as other tools write them, made from the package's images: edits by name."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .conftest import SAMPLES, Content, rle

Edit = Callable[[Content], object]
FIRST = 439117  # id of the first annotation
IMAGE = "000000000885.jpg"  # of the first image, 427 high and 640 wide


def each(**changes: Callable[[Any], Any]) -> Edit:
    """Change fields of every annotation by functions of what they hold."""

    def edit(content: Content) -> None:
        for entry in content["annotations"]:
            for name, change in changes.items():
                entry[name] = change(entry[name])

    return edit


def first(**values: Any) -> Edit:
    """Set fields of the first annotation."""
    return lambda content: content["annotations"][0].update(values)


def images(**changes: Callable[[Any], Any]) -> Edit:
    def edit(content: Content) -> None:
        for entry in content["images"]:
            for name, change in changes.items():
                entry[name] = change(entry[name])

    return edit


def both(*edits: Edit) -> Edit:
    return lambda content: [edit(content) for edit in edits]


def without(name: str) -> Edit:
    return lambda content: [entry.pop(name) for entry in content["annotations"]]


def texts(numbers: list[float]) -> list[str]:
    return list(map(str, numbers))


def nested(numbers: list[float]) -> list[list[float]]:
    return [numbers[i : i + 3] for i in range(0, len(numbers), 3)]


def renumbered(content: Content) -> None:
    for number, entry in enumerate(content["annotations"]):
        entry["id"] = number


def repeated_image(content: Content) -> None:
    content["images"][1]["id"] = content["images"][0]["id"]


def other_category(content: Content) -> None:
    content["annotations"].append({"id": 99999, "image_id": 885, "category_id": 18})


def moved_category(number: int) -> Edit:
    """The category of persons by another id."""

    def edit(content: Content) -> None:
        content["categories"][0]["id"] = number
        each(category_id=lambda _: number)(content)

    return edit


def polygon(*numbers: float) -> Edit:
    """Put a polygon before those of the first annotation."""

    return lambda c: c["annotations"][0]["segmentation"].insert(0, list(numbers))


# Read as if they were written as COCO does: the edit, and the warning.
NOTED: dict[str, tuple[Edit, str]] = {
    "bbox_strings": (each(bbox=texts), f"numbers written as text.*: 33, .*{FIRST}"),
    "keypoints_strings": (each(keypoints=texts), f"numbers written as text.*: 33, .*{FIRST}"),
    "width_height_strings": (
        images(width=str, height=str),
        r"numbers written as text.*: 8, first image 0 \(id 885\)",
    ),
    "string_image_ids_both": (
        both(images(id=str), each(image_id=str)),
        r"numbers written as text.*: 41, first image 0 \(id '885'\)",
    ),
    "area_strings": (each(area=str), f"numbers written as text.*: 33, .*{FIRST}"),
    "polygon_strings": (
        each(segmentation=lambda polygons: list(map(texts, polygons))),
        "numbers written as text.*: 33, first annotation 0",
    ),
    "num_keypoints_strings": (each(num_keypoints=str), "numbers written as text.*: 33, "),
    "keypoints_nested_pairs": (each(keypoints=nested), f"points in lists.*: 33, .*{FIRST}"),
    "iscrowd_null": (
        each(iscrowd=lambda _: None),
        "null, read as if nothing.*: 33, first annotation 0",
    ),
    "iscrowd_string_0": (each(iscrowd=str), "numbers written as text.*: 33, first annotation 0"),
    "num_keypoints_null": (each(num_keypoints=lambda _: None), f"null.*: 33, .*{FIRST}"),
    "annotation_id_0": (renumbered, r"annotation ids.*: 1, first annotation 0 \(id 0\)"),
    "annotation_ids_all_same": (
        each(id=lambda _: 7),
        r"annotation ids.*: 32, first annotation 1 \(id 7\)",
    ),
    "id_null": (each(id=lambda _: None), r"annotation ids.*: 33, first annotation 0 \(id None\)"),
    "id_string": (each(id=lambda n: f"a-{n}"), f"annotation ids.*: 33, .*'a-{FIRST}'"),
    "id_list": (each(id=lambda n: [n]), "annotation ids.*: 33, first annotation 0"),
    "other_category_annotation_without_bbox": (
        other_category,
        r"a category that is not listed.*: 1, first annotation 33 \(id 99999\)",
    ),
    "category_missing": (without("category_id"), f"no category, taken for persons: 33, .*{FIRST}"),
    "polygon_4_numbers": (polygon(1, 1, 5, 5), f"fewer than three points.*: 1, .*{FIRST}"),
    "image_of_nobody": (first(image_id=5), "Annotations whose image is not listed: 1, first ann"),
}

# Used as they are, without a word.
SILENT: dict[str, Edit] = {
    "clean": lambda content: None,
    "iscrowd_bool": each(iscrowd=bool),
    "person_is_category_0": moved_category(0),
    "person_is_category_2_alone": moved_category(2),
    "num_keypoints_missing": without("num_keypoints"),
}
NO_AREA: dict[str, Edit] = {
    "no_area": without("area"),
    "area_null": each(area=lambda _: None),
    "area_0": each(area=lambda _: 0),
}

NEAR = "expected finite coordinates, at most one side outside an image of 640x427"
# Refused: the edit, and words of the message.
REFUSED: dict[str, tuple[Edit, str]] = {
    "image_id_twice": (repeated_image, f"image 1 has the id 885 of '{IMAGE}'"),
    "rle_swapsize": (
        first(segmentation=rle(np.s_[190:398, 77:217], (640, 427))),
        f"(id {FIRST}): RLE of height and width [640, 427], expected those of the image",
    ),
    "rle_bytesrepr_6pics_hangs": (
        first(segmentation={"size": [427, 640], "counts": str(b"gZk15g>9H7H8I7H9")}),
        "write `counts.decode()` instead of `str(counts)`",
    ),
    "rle_short_hangs": (
        first(segmentation={"size": [427, 640], "counts": [5, 9]}),
        f"(id {FIRST}): RLE of 14 pixels, expected the 273280 of the image",
    ),
    "rle_negative": (
        first(segmentation={"size": [427, 640], "counts": [-5, 273285]}),
        "an RLE's counts are whole numbers from 0 or pycocotools' text, got [-5, 273285]",
    ),
    "rle_cut_number": (
        first(segmentation={"size": [427, 640], "counts": "0P"}),
        "an RLE's counts are whole numbers from 0 or pycocotools' text, got '0P'",
    ),
    "nan_polygon_one_oom": (polygon(math.nan, 1, 5, 1, 5, 5), f"(nan, 1): {NEAR}"),
    "infinite_polygon": (polygon(1, math.inf, 5, 1, 5, 5), f"(1, inf): {NEAR}"),
    "huge_polygon": (polygon(1e300, 1, 5, 1, 5, 5), f"(1e+300, 1): {NEAR}"),
    "far_polygon": (polygon(1, -428, 5, 1, 5, 5), f"(1, -428): {NEAR}"),
    "endless_polygon": (polygon(*[0, 0, 640, 427] * 999), "its outline is 2"),
    "odd_polygon": (polygon(1, 1, 5, 1, 5, 5, 1), "an x and a y for each point of a polygon"),
    "bbox_nan": (
        first(bbox=[1, math.nan, 3, 4]),
        f"(id {FIRST}): bbox.1: Input should be a finit",
    ),
    "bbox_huge": (first(bbox=[1, 1e300, 3, 4]), "bbox.1: Input should be less than or equal to"),
    "keypoints_short": (first(keypoints=[1, 2, 2]), "expected x, y and v of 17 keypoints, got 3"),
    "iscrowd_2": (first(iscrowd=2), f"(id {FIRST}): iscrowd: Input should be 0 or 1, got 2"),
    "area_negative": (first(area=-5), f"(id {FIRST}): area: Input should be greater"),
    "image_too_large": (
        lambda c: c["images"][0].update(width=2**20, height=2**20),
        "an image has at most 1073741824 pixels",
    ),
}


def make_case(folder: Path, edit: Edit, count: int = 8) -> Path:
    """A folder of images with an edited `annotations.json`; returns that.

    Args:
        folder: to be made.
        edit: of the content.
        count: images that are copied.
    """
    folder.mkdir()
    content = json.loads((SAMPLES / "annotations.json").read_text())
    content["images"] = content["images"][:count]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    for image in content["images"]:
        shutil.copy(SAMPLES / image["file_name"], folder)
    edit(content)
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder / "annotations.json"


def halve(path: Path) -> None:
    """Store an image at half its size."""
    image = cv2.imread(str(path))
    assert image is not None
    cv2.imwrite(str(path), cv2.resize(image, None, fx=0.5, fy=0.5))


def turn(path: Path, orientation: int = 6) -> None:
    """Store a jpeg with an EXIF orientation, its pixels as they are."""
    tag = b"\x01\x12\x00\x03\x00\x00\x00\x01" + bytes([0, orientation, 0, 0])
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + tag + b"\0\0\0\0"
    data = path.read_bytes()
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    path.write_bytes(data[:2] + segment + data[2:])
