"""People as plain JSON values, and files of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kdc_core.codec.results import Person, Prediction
from kdc_core.data.sources import Frame
from kdc_core.files import whole_file
from kdc_core.inference.predictor import ImageArrayError, Predictor


def people_or_error(predictor: Predictor, frame: Frame) -> Prediction | str:
    """The people of a frame, or why they cannot be had."""
    if frame.image is None:
        return frame.error or f"'{frame.source}' gave no image"
    try:
        return predictor(frame.image)
    except ImageArrayError as error:
        return f"'{frame.source}': {error}"


def frame_json(frame: Frame, found: Prediction | str) -> dict[str, Any]:
    """One frame as JSON values.

    Args:
        frame: where it came from; its image is not read.
        found: its people, or why there are none to be had.

    Returns:
        source, frame, and size [height, width] and persons (`person_json`), or error.
    """
    entry: dict[str, Any] = {"source": frame.source, "frame": frame.index}
    if isinstance(found, str):
        return {**entry, "error": found}
    people = [person_json(person, found.size) for person in found.persons]
    return {**entry, "size": list(found.size), "persons": people}


def person_json(person: Person, size: tuple[int, int]) -> dict[str, Any]:
    """One person as JSON values.

    Args:
        person: who.
        size: (height, width) of the image.

    Returns:
        score, box [x0, y0, x1, y1], keypoints [[x, y, score], ...] in image pixels, and
        segmentation as an uncompressed COCO RLE.
    """
    return {
        "score": round(person.score, 4),
        "box": [round(float(v), 2) for v in person.box],
        "keypoints": np.round(person.keypoints.astype(float), 3).tolist(),
        "segmentation": {"size": list(size), "counts": run_lengths(person.full_mask(size))},
    }


def run_lengths(mask: np.ndarray) -> list[int]:
    """Column-major run lengths of a (H, W) bool mask, beginning with background (COCO RLE)."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate(([0], edges, [flat.size])))
    return ([0] if flat.size and flat[0] else []) + runs.tolist()


@contextmanager
def people_file(
    path: Path | None, predictor: Predictor
) -> Iterator[Callable[[Frame, Prediction | str], None]]:
    """Write frames into one JSON file as they come; use as a context manager.

    The file has model, keypoints and images (`frame_json`). It gets its name when the block ends
    without error, and is whole up to the last frame, also where Ctrl-C cut one short.

    Args:
        path: where to; None = nowhere.
        predictor: what finds the people.

    Yields:
        What takes a frame and its people, or why there are none to be had.

    Raises:
        KdcError: the file cannot be written.
    """
    if path is None:
        yield lambda frame, found: None
        return
    head = {"model": predictor.config.name, "keypoints": list(predictor.skeleton.keypoints)}
    with whole_file(path) as part, open(part, "wb") as file:
        file.write(json.dumps(head).removesuffix("}").encode() + b', "images": [')
        end = start = file.tell()

        def write(frame: Frame, found: Prediction | str) -> None:
            nonlocal end
            text = json.dumps(frame_json(frame, found), allow_nan=False)
            file.write(b"\n" if end == start else b",\n")
            file.write(text.encode())
            end = file.tell()

        yield write
        file.seek(end)
        file.truncate()
        file.write(b"\n]}\n")
