"""From a COCO file to Annotations: normalised and checked whole, once."""

from __future__ import annotations

import gzip
import json
import logging
import os
import zlib
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from kdc_core.codec.skeleton import COCO17, Skeleton
from kdc_core.data.annotations import AnnotationError, Annotations
from kdc_core.data.categories import (
    has_keypoints,
    other_skeleton,
    person_category,
    read_categories,
)
from kdc_core.data.entries import Notes, as_id
from kdc_core.data.faults import Fault, counted, listed
from kdc_core.data.reader import Reader, Reading
from kdc_core.memory import without_collection

log = logging.getLogger(__name__)

# A gzip of blanks alone is a thousandth of what it holds, and one of annotations a tenth.
LARGEST_RATIO = 100
SMALL_BYTES = 1 << 24  # that it may hold in any case
CHUNK_BYTES = 1 << 22


def _read_json(path: str | Path) -> Any:
    """Read a .json or .json.gz file.

    Raises:
        AnnotationError: missing, truncated, or not JSON.
    """
    path = Path(path)
    if os.path.exists(path) and not os.path.isfile(
        path
    ):  # a device or a pipe may give data for ever
        raise AnnotationError(f"'{path}' is no file: expected .json or .json.gz")
    try:
        data: bytes | bytearray = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = _unzipped(path, max(SMALL_BYTES, LARGEST_RATIO * len(data)))
        try:
            return from_json(data)  # in half of json's time and less memory
        except ValueError:
            # Takes other encodings, byte order marks and halves of surrogates, too.
            return json.loads(data)
    except OSError as error:
        raise AnnotationError(
            f"cannot read '{path}': {error.strerror or 'damaged gzip'}"
        ) from error
    except (ValueError, EOFError, zlib.error, RecursionError) as error:
        raise AnnotationError(
            f"'{path}' is not a complete JSON or json.gz file: {error}"
        ) from error


def _unzipped(path: Path, limit: int) -> bytearray:
    """What a gzip file holds.

    Raises:
        AnnotationError: more than this many bytes.
    """
    content = bytearray()
    with gzip.open(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            content += chunk
            if len(content) > limit:
                raise AnnotationError(
                    f"'{path}' holds over {LARGEST_RATIO} times its size, which annotations do "
                    "not: unzip it to use it all the same"
                )
    return content


def read_entries(path: str | Path) -> dict[str, Any]:
    """Read a COCO file as it is: an object with the lists `images` and `annotations`.

    Raises:
        AnnotationError: not such a file.
    """
    content = _read_json(path)
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


def read_annotations(
    path: str | Path,
    skeleton: Skeleton = COCO17,
    category: str | None = None,
    also: Skeleton | None = None,
) -> Annotations:
    """Read the persons of a COCO keypoint or instance annotation file.

    What is read otherwise than it is written, or left out, is logged: a line a kind.

    Args:
        path: .json or .json.gz with `images`, `annotations` and `categories`.
        skeleton: the keypoints its persons should have.
        category: id or name of the category of persons; None = `person_category` finds it.
        also: another skeleton whose keypoints they may have instead.

    Raises:
        AnnotationError: it cannot be used; lists everything that is wrong, 20 of a kind.
    """
    return used(read(path, skeleton, category, also))


def read_image_list(path: str | Path) -> Annotations:
    """Read the images of a file that lists them without persons, as COCO's image_info files do.

    Raises:
        AnnotationError: it cannot be used; lists everything that is wrong, 20 of a kind.
    """
    content = _read_json(path)
    entries = content.get("images") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise AnnotationError(f"'{path}' lists no images: expected an object with 'images'")
    found = Reading(Annotations(Path(path), ()), ())
    reader = Reader(found)
    reader.read_images(entries)
    reader.finish()
    return used(found)


def used(found: Reading) -> Annotations:
    """What was read, if it can be used; what was otherwise than it should be is logged.

    Raises:
        AnnotationError: it cannot.
    """
    path = found.annotations.path
    if found.refused:
        raise AnnotationError("\n".join([f"'{path}' cannot be used", *listed(found.refused)]))
    for line in found.notes.lines() + counted(found.left_out):
        log.warning("'%s': %s", path, line)
    return found.annotations


@without_collection()
def read(
    path: str | Path,
    skeleton: Skeleton,
    category: str | None = None,
    also: Skeleton | None = None,
) -> Reading:
    """Read a file as far as it can be used; arguments as for `read_annotations`.

    Raises:
        AnnotationError: not a COCO file, or it does not say which category is the person.
    """
    content, notes = read_entries(path), Notes()
    try:
        categories = read_categories(content, notes)
        person = person_category(content, categories, category)
    except AnnotationError as error:
        raise AnnotationError(f"'{path}': {error}") from error
    # Of this one the names must say it: by their number alone others would be taken for it.
    if also is not None and has_keypoints(person.keypoints, also):
        skeleton = also
    names = tuple(person.keypoints) or skeleton.keypoints
    found = Reading(Annotations(Path(path), (), skeleton, person.id), names, notes)
    if told := other_skeleton(person.keypoints, skeleton):
        found.refused.append(Fault("categories", told))
    elif not person.keypoints:
        told = f"the category of persons, {person.id!r}, names no keypoints"
        found.left_out.append(Fault("categories", told))
    reader = Reader(found)
    reader.read_images(content.pop("images"))
    reader.read_persons(content.pop("annotations"), {as_id(entry.id) for entry in categories})
    reader.finish()
    return found
