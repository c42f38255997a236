"""COCO annotation files: persons with keypoints, boxes and masks."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle_tools

from kdc_core.errors import KdcError
from kdc_core.skeleton import SKELETONS


class AnnotationError(KdcError):
    """An annotation file that cannot be used; the text says what was expected."""


@dataclass(frozen=True)
class Annotation:
    """One annotated person, in pixels of its picture.

    Attributes:
        keypoints: (K, 3) float32 x, y, v; v is 0 unlabelled, 1 hidden, 2 visible. x and y are
            those of the pixel's centre.
        box: (4,) float32 x0, y0, x1, y1.
        segmentation: COCO polygons or RLE, or None.
        crowd: a region of many people, not one person.
    """

    keypoints: np.ndarray
    box: np.ndarray
    segmentation: Any
    crowd: bool


@dataclass(frozen=True)
class AnnotatedPicture:
    """A picture's name, (height, width), persons, and whether they carry masks."""

    id: int
    file_name: str
    size: tuple[int, int]
    persons: tuple[Annotation, ...]
    has_masks: bool


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


def read_coco(path: str | Path, num_keypoints: int = 17) -> list[AnnotatedPicture]:
    """Read the persons of a COCO keypoint or instance annotation file.

    Args:
        path: .json or .json.gz with `images`, `annotations` and `categories`.
        num_keypoints: keypoints per person the skeleton expects.

    Returns:
        One entry per picture, in the order of the file.

    Raises:
        AnnotationError: not such a file; names the first wrong entry.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    ):
        raise AnnotationError(
            f"'{path}' is not a COCO annotation file: expected an object with the lists 'images' "
            f"and 'annotations', got {_describe(content)}"
        )
    if told := other_keypoints(content, num_keypoints):
        raise AnnotationError(f"'{path}': {told}")
    persons: dict[int, list[Annotation]] = {}
    for index, entry in enumerate(content["annotations"]):
        try:
            if entry.get("category_id", 1) == 1:
                person = parse_person(entry, num_keypoints)
                persons.setdefault(entry["image_id"], []).append(person)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AnnotationError(
                f"'{path}': annotation {index} is not a COCO person with 'image_id', 'bbox' and "
                f"{num_keypoints} keypoints: {type(error).__name__}: {error}"
            ) from error
    pictures = []
    for index, entry in enumerate(content["images"]):
        try:
            mine = tuple(persons.get(entry["id"], ()))
            size = (int(entry["height"]), int(entry["width"]))
            if min(size) < 1:
                raise ValueError(f"size {size}")
            has_masks = all(p.segmentation for p in mine)
            name = str(entry["file_name"])
            pictures.append(AnnotatedPicture(int(entry["id"]), name, size, mine, has_masks))
        except (KeyError, TypeError, ValueError) as error:
            raise AnnotationError(
                f"'{path}': image {index} lacks a usable 'id', 'file_name', 'height' or 'width': "
                f"{type(error).__name__}: {error}"
            ) from error
    return pictures


def other_keypoints(content: dict[str, Any], num_keypoints: int) -> str | None:
    """What is wrong where a file's category 1 names another number of keypoints, else None."""
    categories = content.get("categories")
    entries = categories if isinstance(categories, list) else []
    persons = [c for c in entries if isinstance(c, dict) and c.get("id") == 1]
    names = persons[0].get("keypoints") if persons else None
    if not isinstance(names, list) or not names or len(names) == num_keypoints:
        return None
    text = f"its persons have {len(names)} keypoints, expected {num_keypoints}"
    for skeleton in SKELETONS.values():
        if skeleton.num_keypoints == len(names):
            text += (
                f"; the skeleton {skeleton.name} has as many (`kdc data check --skeleton`, "
                "`kdc train --set fields.skeleton=`, or a model that has it)"
            )
    return text


def parse_person(entry: dict[str, Any], num_keypoints: int) -> Annotation:
    """Read one entry of `annotations`.

    Raises:
        KeyError, TypeError, ValueError, AttributeError, OverflowError: it is malformed.
    """
    flat = entry.get("keypoints") or [0] * (3 * num_keypoints)
    keypoints = np.asarray(flat, np.float32).reshape(num_keypoints, 3).copy()
    left, top, width, height = (float(v) for v in entry["bbox"])
    box = np.array([left, top, left + width, top + height], np.float32)
    if not (np.isfinite(keypoints).all() and np.isfinite(box).all()):
        raise ValueError("a coordinate is not finite")
    return Annotation(
        keypoints, box, entry.get("segmentation") or None, bool(entry.get("iscrowd", 0))
    )


def _describe(content: Any) -> str:
    if isinstance(content, dict):
        return f"an object with the keys {sorted(content)[:6]}"
    return f"a {type(content).__name__}"


def decode_mask(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Rasterise COCO polygons or RLE to (H, W) bool.

    Args:
        segmentation: list of polygons (flat x, y lists) or an RLE object.
        size: (height, width).

    Raises:
        ValueError: neither.
    """
    try:
        return _decode_mask(segmentation, size)
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"a segmentation is neither polygons nor RLE: {error!r}") from error


def _decode_mask(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    if isinstance(segmentation, dict):
        rle = segmentation
        if isinstance(rle["counts"], list):
            rle = rle_tools.frPyObjects(rle, height, width)
    elif not isinstance(segmentation, list):
        raise TypeError(type(segmentation).__name__)
    else:
        polygons = [p for p in segmentation if len(p) >= 6]
        if not polygons:
            return np.zeros(size, bool)
        rle = rle_tools.merge(rle_tools.frPyObjects(polygons, height, width))
    return rle_tools.decode(rle).astype(bool)
