"""Where images come from: files, folders, videos, cameras."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from kdc_core.data.images import ImageError, decode_image
from kdc_core.errors import KdcError

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif", ".m4v")


class SourceError(KdcError):
    """A path from which no image can be had."""


@dataclass(frozen=True)
class Frame:
    """One image of a source, or why it could not be read.

    Attributes:
        source: the path or camera number it came from.
        index: number of the frame in a video or camera; None for an image file.
        image: (H, W, 3) uint8 RGB, or None.
        error: set where image is None.
        rate: frames per second of a video or camera.
    """

    source: str
    index: int | None
    image: np.ndarray | None
    error: str | None = None
    rate: float = 0.0


def list_sources(paths: list[str]) -> list[str]:
    """Expand folders to the images and videos in them, in order of name.

    Raises:
        SourceError: a path does not exist or is of no known kind, or a folder holds nothing.
    """
    sources = []
    for path in paths:
        here = Path(path)
        if here.is_dir():
            inside = sorted(str(p) for p in here.iterdir() if p.suffix.lower() in IMAGES + VIDEOS)
            if not inside:
                raise SourceError(
                    f"no images or videos in the folder '{path}': expected files ending in "
                    f"{', '.join(IMAGES + VIDEOS)}"
                )
            sources += inside
        elif here.is_file() and here.suffix.lower() in IMAGES + VIDEOS or path.isdigit():
            sources.append(path)
        elif here.exists():
            raise SourceError(
                f"'{path}' is neither an image nor a video: expected a name ending in "
                f"{', '.join(IMAGES + VIDEOS)}"
            )
        else:
            raise SourceError(f"'{path}' does not exist")
    return sources


def count_frames(source: str) -> int | None:
    """Frames a source says it has; None for cameras and where it does not say."""
    if source.isdigit():
        return None
    if Path(source).suffix.lower() in IMAGES:
        return 1
    capture = cv2.VideoCapture(source)
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    capture.release()
    return count if count > 0 else None


def read_frames(source: str) -> Iterator[Frame]:
    """Read all images of one source; what cannot be read comes as a Frame with an error."""
    if Path(source).suffix.lower() in IMAGES:
        yield _read_image(source)
        return
    capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
    try:
        if not capture.isOpened():
            name = f"camera {source}" if source.isdigit() else f"'{source}'"
            yield Frame(source, None, None, f"{name} cannot be opened as a video")
            return
        rate = capture.get(cv2.CAP_PROP_FPS) or 0.0
        index = 0
        while True:
            got, image = capture.read()
            if not got:
                break
            yield Frame(source, index, cv2.cvtColor(image, cv2.COLOR_BGR2RGB), None, rate)
            index += 1
        if index == 0:
            yield Frame(source, None, None, f"'{source}' holds no frame that can be read")
    finally:
        capture.release()


def _read_image(source: str) -> Frame:
    try:
        image = decode_image(Path(source).read_bytes(), source)
    except ImageError as error:
        return Frame(source, None, None, str(error))
    except OSError as error:
        return Frame(source, None, None, f"cannot read '{source}': {error.strerror}")
    return Frame(source, None, image)
