"""Where images come from: files, folders, videos, cameras."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from kdc_core.data.images import count_pages, decode_pages, not_an_image
from kdc_core.data.videos import Video, VideoError
from kdc_core.errors import KdcError

log = logging.getLogger(__name__)

ALWAYS = (".bmp", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".webp")
# What OpenCV reads where it was built with it.
MAYBE = tuple(".avif .hdr .jp2 .jxl .pam .pfm .pic .pxm .ras .sr .tif .tiff".split())
MOST_DIGITS = 9  # of the number of a camera
VIDEOS = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".webm")


class SourceError(KdcError):
    """A path from which no image can be had."""


@dataclass(frozen=True)
class Frame:
    """One image of a source, or why it could not be read.

    Attributes:
        source: the path or camera number it came from; `os.fsencode` gives the file's name.
        index: number of the page in an image file of several, or of the frame in a video or
            camera, from 0; None for an image file.
        image: (H, W, 3) uint8 RGB as it is to be shown, or None.
        error: set where image is None.
        time: at which it is shown, seconds from the beginning of a video, animation or camera.
        duration: for which it is shown, seconds.
    """

    source: str
    index: int | None
    image: np.ndarray | None
    error: str | None = None
    time: float | None = None
    duration: float | None = None


def is_image(name: str) -> bool:
    """Whether the ending of a name is one of images that this OpenCV reads."""
    return Path(name).suffix.lower() in image_endings()


@cache
def image_endings() -> tuple[str, ...]:
    """Endings of the images that this OpenCV reads: what it reads it also writes."""
    return ALWAYS + tuple(ending for ending in MAYBE if cv2.haveImageWriter(f"x{ending}"))


def list_sources(paths: list[str]) -> list[str]:
    """Expand folders to the images and videos in them, in order of name.

    Hidden files are left out, and other files too: how many of which ending is logged.

    Raises:
        SourceError: a path does not exist or is of no known kind, or a folder holds nothing.
    """
    sources = []
    expected = f"expected names ending in {', '.join(sorted(image_endings() + VIDEOS))}"
    for path in paths:
        if os.path.isdir(path):
            inside, others = _look_into(path)
            counts = ", ".join(f"{n} {ending or 'without'}" for ending, n in others.most_common())
            if not inside:
                got = f", got {counts}" if others else ""
                raise SourceError(f"no images or videos in the folder '{path}': {expected}{got}")
            if others:
                log.warning("'%s': left out by ending: %s", path, counts)
            sources += inside
        elif path.isdecimal() and len(path) > MOST_DIGITS:
            raise SourceError(f"there is no camera {path}")
        elif path.isdecimal() or os.path.isfile(path) and _is_source(path):
            sources.append(path)
        elif os.path.exists(path):
            raise SourceError(f"'{path}' is neither an image nor a video: {expected}")
        else:
            raise SourceError(f"'{path}' does not exist")
    return sources


def _look_into(folder: str) -> tuple[list[str], Counter[str]]:
    """Sources in a folder, and numbers by ending of what else is in it."""
    inside: list[str] = []
    others: Counter[str] = Counter()
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name.startswith("."):
            continue
        if os.path.isdir(path):
            others["folder"] += 1
        elif os.path.exists(path) and not os.path.isfile(path):
            others["pipe or device"] += 1  # one may be waited for, the other has no end
        elif _is_source(name):
            inside.append(path)
        else:
            others[Path(name).suffix.lower()] += 1
    return inside, others


def _is_source(name: str) -> bool:
    return is_image(name) or Path(name).suffix.lower() in VIDEOS


def count_frames(source: str) -> int | None:
    """Frames a source says it has; None for cameras and where it does not say.

    Image files are taken as one: looking for pages would read them all.
    """
    if source.isdecimal():
        return None
    if is_image(source):
        return 1
    try:
        with closing(Video(source)) as video:
            return video.frames
    except VideoError:
        return 1  # the Frame that says so


def read_frames(source: str) -> Iterator[Frame]:
    """Read all images of one source: the pages of a file, the frames of a video or camera.

    What cannot be read comes as a Frame with an error: the source, or in the end what is missing
    of it. A frame is given once the next is read, which says for how long it is shown.
    """
    yield from _read_image(source) if is_image(source) else _read_video(source)


def _read_image(source: str) -> Iterator[Frame]:
    try:
        data = Path(source).read_bytes()
    except OSError as error:
        yield Frame(source, None, None, f"cannot read '{source}': {error.strerror}")
        return
    count, read, now = count_pages(data), 0, 0.0
    for page in decode_pages(data, source):
        index = page.index if count > 1 else None
        time = None if page.seconds is None else now
        yield Frame(source, index, page.image, None, time, page.seconds)
        read, now = read + 1, now + (page.seconds or 0)
    if read == 0:
        yield Frame(source, None, None, not_an_image(data, source))
    elif read < count:
        yield _missing(source, read, count)


def _read_video(source: str) -> Iterator[Frame]:
    try:
        video = Video(source)
    except VideoError as error:
        yield Frame(source, None, None, str(error))
        return
    image, shown, duration, count = None, 0.0, video.step, 0
    with closing(video):
        for following, time in video:
            if image is not None:
                duration = time - shown
                yield Frame(source, count - 1, image, None, shown, duration)
            image, shown, count = following, time, count + 1
        if image is None:
            yield Frame(source, None, None, f"'{source}' holds no frame that can be read")
            return
        left = 0.0 if video.end is None or video.missing else video.end - shown
        yield Frame(source, count - 1, image, None, shown, left if left > 0 else duration)
    if video.missing:
        yield _missing(source, count, count + video.missing)


def _missing(source: str, read: int, said: int) -> Frame:
    return Frame(source, None, None, f"'{source}': {read} of {said} frames could be read")
