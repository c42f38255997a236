"""People as plain JSON values, and files of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from kdc_core.codec.results import Person, Prediction
from kdc_core.codec.skeleton import Skeleton
from kdc_core.data.sources import Frame
from kdc_core.errors import KdcError
from kdc_core.files import whole_file
from kdc_core.inference.predictor import ImageArrayError, Predictor

END = b"\n]}\n"  # of the file


def people_or_error(find: Callable[[np.ndarray], Prediction], frame: Frame) -> Prediction | str:
    """The people of a frame, as a Predictor finds them, or why they cannot be had."""
    if frame.image is None:
        return frame.error or f"'{frame.source}' gave no image"
    try:
        return find(frame.image)
    except ImageArrayError as error:
        return f"'{frame.source}': {error}"


def frame_json(frame: Frame, found: Prediction | str) -> dict[str, Any]:
    """One frame as JSON values.

    Args:
        frame: where it came from; its image is not read.
        found: its people, or why there are none to be had.

    Returns:
        source, frame, time (seconds, of a video, animation or camera alone), and size [height,
        width] and persons (`person_json`), or error.
    """
    entry: dict[str, Any] = {"source": frame.source, "frame": frame.index}
    if frame.time is not None:
        entry["time"] = round(frame.time, 6)
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
        id, where it has one, score, box [x0, y0, x1, y1], mask_score, where it has one, keypoints
        [[x, y, score], ...] in image pixels, and segmentation as an uncompressed COCO RLE.
    """
    return {
        **({} if person.id is None else {"id": person.id}),
        **_score_and_box(person),
        **({} if person.mask_score is None else {"mask_score": round(person.mask_score, 4)}),
        "keypoints": np.round(person.keypoints.astype(float), 3).tolist(),
        "segmentation": {"size": list(size), "counts": run_lengths(person.full_mask(size))},
    }


def person_summary(person: Person, skeleton: Skeleton, threshold: float) -> dict[str, Any]:
    """One person as JSON values, to be read by people: no mask, and keypoints by name.

    Args:
        person: who.
        skeleton: of its keypoints.
        threshold: keypoints below are left out.

    Returns:
        score, box [x0, y0, x1, y1], area (pixels of the mask), and keypoints {name: [x, y,
        score]}, in image pixels.
    """
    rows = np.round(person.keypoints.astype(float), 3).tolist()
    return {
        **_score_and_box(person),
        "area": person.area,
        "keypoints": {
            name: row
            for name, row, score in zip(
                skeleton.keypoints, rows, person.keypoints[:, 2], strict=True
            )
            if score >= threshold
        },
    }


def _score_and_box(person: Person) -> dict[str, Any]:
    return {
        "score": round(person.score, 4),
        "box": [round(float(v), 2) for v in person.box],
    }


def run_lengths(mask: np.ndarray) -> list[int]:
    """Column-major run lengths of a (H, W) bool mask, beginning with background (COCO RLE)."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate(([0], edges, [flat.size])))
    return ([0] if flat.size and flat[0] else []) + runs.tolist()


class PeopleFile:
    """One JSON file of frames, which is whole after each of them; use as a context manager.

    The file has model, keypoints and images (`frame_json`). It gets its name at the end of the
    block, also where that ends early.

    Args:
        path: where to; None = nowhere.
        predictor: what finds the people.

    Raises:
        KdcError: the file cannot be written.
    """

    def __init__(self, path: Path | None, predictor: Predictor):
        self._path = path
        self._head = {
            "model": predictor.config.name,
            "keypoints": list(predictor.skeleton.keypoints),
        }
        self._open = ExitStack()
        self._file: FileIO | None = None
        self._end = 0  # of the last entry
        self._first = True

    def __enter__(self) -> PeopleFile:
        if self._path is not None:
            with ExitStack() as opening:
                part = opening.enter_context(whole_file(self._path))
                self._file = opening.enter_context(open(part, "wb", buffering=0))
                head = json.dumps(self._head).removesuffix("}")
                self._append(head.encode() + b', "images": [')
                self._open = opening.pop_all()
        return self

    def write(self, frame: Frame, found: Prediction | str) -> None:
        """Add a frame and its people, or why there are none to be had.

        Raises:
            KdcError: it cannot be written; the file is whole with the frames before.
        """
        if self._file is None:
            return
        text = json.dumps(frame_json(frame, found), allow_nan=False)
        try:
            self._append((b"\n" if self._first else b",\n") + text.encode())
        except OSError as error:
            self._append(b"")
            raise KdcError(
                f"cannot write '{self._path}': {error.strerror}; the frames before are kept"
            ) from error
        self._first = False

    def _append(self, data: bytes) -> None:
        """Write behind the last entry, and the end of the file behind it."""
        assert self._file is not None
        self._file.seek(self._end)
        rest = memoryview(data + END)
        while rest:
            rest = rest[self._file.write(rest) or 0 :]
        self._file.truncate()
        self._end += len(data)

    def __exit__(self, *error: object) -> None:
        self._open.close()
