"""From a COCO file to Annotations."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kdc_core.codec.skeleton import COCO17, SKELETONS, Skeleton
from kdc_core.data.annotations import (
    BOX_FRACTION,
    AnnotatedImage,
    AnnotatedPerson,
    AnnotationError,
    Annotations,
)
from kdc_core.data.masks import describe

# What a malformed entry of a file may raise while it is read.
MALFORMED = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


def read_json(path: str | Path) -> Any:
    """Read a .json or .json.gz file.

    Raises:
        AnnotationError: missing, truncated, or not JSON.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        return json.loads(data)
    except OSError as error:
        raise AnnotationError(
            f"cannot read '{path}': {error.strerror or 'damaged gzip'}"
        ) from error
    except (ValueError, EOFError, zlib.error, RecursionError) as error:
        raise AnnotationError(
            f"'{path}' is not a complete JSON or json.gz file: {error}"
        ) from error


def read_entries(path: str | Path) -> dict[str, Any]:
    """Read a COCO file as it is: an object with the lists `images` and `annotations`.

    Raises:
        AnnotationError: not such a file.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    ):
        got = f"a {type(content).__name__}"
        if isinstance(content, dict):
            got = f"an object with the keys {sorted(content)[:6]}"
        raise AnnotationError(
            f"'{path}' is not a COCO annotation file: expected an object with the lists 'images' "
            f"and 'annotations', got {got}"
        )
    return content


def read_annotations(path: str | Path, skeleton: Skeleton = COCO17) -> Annotations:
    """Read the persons of a COCO keypoint or instance annotation file.

    Args:
        path: .json or .json.gz with `images`, `annotations` and `categories`.
        skeleton: the keypoints its persons should have.

    Raises:
        AnnotationError: not such a file; names the first wrong entry.
    """
    content = read_entries(path)
    if told := other_keypoints(content, skeleton):
        raise AnnotationError(f"'{path}': {told}")
    persons: dict[Any, list[AnnotatedPerson]] = {}
    for index, entry in enumerate(content["annotations"]):
        try:
            if entry.get("category_id", 1) == 1:
                person = parse_person(entry, skeleton, index + 1)
                persons.setdefault(entry["image_id"], []).append(person)
        except MALFORMED as error:
            raise AnnotationError(
                f"'{path}': annotation {index} is not a COCO person with 'image_id', 'bbox' and "
                f"{skeleton.num_keypoints} keypoints: {describe(error)}"
            ) from error
    images: list[AnnotatedImage] = []
    known: dict[int, str] = {}
    for index, entry in enumerate(content["images"]):
        try:
            image = parse_image(entry)
            images.append(replace(image, persons=tuple(persons.get(entry["id"], ()))))
        except MALFORMED as error:
            raise AnnotationError(
                f"'{path}': image {index} lacks a usable 'id', 'file_name', 'height' or 'width': "
                f"{describe(error)}"
            ) from error
        if image.id in known:
            raise AnnotationError(
                f"'{path}': '{known[image.id]}' and '{image.file_name}' have the id {image.id}: "
                "give each image its own, for persons name their image by it"
            )
        known[image.id] = image.file_name
    return Annotations(Path(path), tuple(images), skeleton)


def other_keypoints(content: dict[str, Any], skeleton: Skeleton) -> str | None:
    """What is wrong where a file's category 1 names another number of keypoints, else None."""
    categories = content.get("categories")
    entries = categories if isinstance(categories, list) else []
    persons = [c for c in entries if isinstance(c, dict) and c.get("id") == 1]
    names = persons[0].get("keypoints") if persons else None
    if not isinstance(names, list) or not names or len(names) == skeleton.num_keypoints:
        return None
    text = f"its persons have {len(names)} keypoints, expected {skeleton.num_keypoints}"
    for known in SKELETONS.values():
        if known.num_keypoints == len(names):
            text += (
                f"; the skeleton {known.name} has as many (`kdc data check --skeleton`, "
                "`kdc train --set fields.skeleton=`, or a model that has it)"
            )
    return text


def parse_image(entry: dict[str, Any]) -> AnnotatedImage:
    """Read one entry of `images`, without persons.

    Raises:
        MALFORMED: it lacks something.
    """
    size = (int(entry["height"]), int(entry["width"]))
    if min(size) < 1:
        raise ValueError(f"height and width {size}")
    crowd_index = entry.get("crowdIndex")
    return AnnotatedImage(
        int(entry["id"]),
        str(entry["file_name"]),
        size,
        crowd_index=None if crowd_index is None else float(crowd_index),
    )


def parse_person(entry: dict[str, Any], skeleton: Skeleton, number: int) -> AnnotatedPerson:
    """Read one entry of `annotations`.

    Args:
        entry: of the file.
        skeleton: the keypoints it should have.
        number: its id where it names none.

    Raises:
        MALFORMED: it lacks something.
    """
    count = skeleton.num_keypoints
    flat = entry.get("keypoints") or [0] * (3 * count)
    keypoints = np.asarray(flat, np.float32).reshape(count, 3).copy()
    left, top, width, height = (float(v) for v in entry["bbox"])
    box = np.array([left, top, left + width, top + height], np.float32)
    if not (np.isfinite(keypoints).all() and np.isfinite(box).all()):
        raise ValueError("a coordinate is not finite")
    given, area = entry.get("num_keypoints"), entry.get("area")
    name = entry.get("id")
    return AnnotatedPerson(
        name if isinstance(name, int) else number,
        keypoints,
        box,
        entry.get("segmentation") or None,
        bool(entry.get("iscrowd", 0)),
        float(area) if area else BOX_FRACTION * width * height,
        int((keypoints[:, 2] > 0).sum()) if given is None else int(given),
    )
