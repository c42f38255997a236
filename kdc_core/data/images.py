"""Image files by name, from a folder or a tar."""

from __future__ import annotations

import logging
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from kdc_core.data.bits16 import To8Bits
from kdc_core.data.chunks import count_animation, without_cut_frame
from kdc_core.data.orientation import orient, read_orientation
from kdc_core.data.tiff import Tiff, is_tiff
from kdc_core.errors import KdcError
from kdc_core.files import whole_file

log = logging.getLogger(__name__)

UNTIMED_S = 0.1  # for which a frame is shown that says no time, as browsers do
TOGETHER = 16  # frames of an animation that are decoded at once


class ImageError(KdcError):
    """An image file that cannot be read; the text names it."""


@dataclass(frozen=True)
class Page:
    """One page of an image file.

    Attributes:
        index: its place in the file, from 0.
        image: (H, W, 3) uint8 RGB as it is to be shown.
        seconds: for which it is shown, in an animation.
    """

    index: int
    image: np.ndarray
    seconds: float | None = None


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decode an encoded image, of several pages the first, to (H, W, 3) uint8 RGB.

    It is turned as EXIF says, and sixteen bits are scaled to eight by `To8Bits`.

    Raises:
        ImageError: the bytes are not an image OpenCV can read.
    """
    for page in decode_pages(data, name):
        return page.image
    raise ImageError(not_an_image(data, name))


def not_an_image(data: bytes, name: str) -> str:
    """Says that a file cannot be read as an image."""
    return (
        f"'{name}' cannot be read as an image: expected a complete jpeg, png, bmp, webp or tiff, "
        f"got {len(data)} bytes starting {data[:8]!r}"
    )


def count_pages(data: bytes) -> int:
    """Pages of an encoded image, as it says itself: at least one."""
    return max(1, len(Tiff(data).pages()) if is_tiff(data) else count_animation(data))


def decode_pages(data: bytes, name: str) -> Iterator[Page]:
    """Decode those pages of a tiff, or of an animated webp or png, that OpenCV can read.

    Any other image is one page. Sixteen bits are scaled to eight, those of all pages alike.

    Args:
        data: the file.
        name: for messages.
    """
    scale = To8Bits()
    for page in _pages(data, scale):
        if scale.nearly_black:
            log.warning(
                "'%s' is nearly black: its values were taken as of %d bits, which a few far "
                "brighter ones have. Scale it to 8 bits beforehand",
                name,
                scale.bits,
            )
            scale.nearly_black = False
        yield page


def _pages(data: bytes, scale: To8Bits) -> Iterator[Page]:
    if is_tiff(data):
        tiff = Tiff(data)
        for index, page in enumerate(tiff.pages()):
            image = decode_stored(tiff.alone(page), scale)
            if image is not None:
                yield Page(index, orient(image, tiff.orientation(page)))
    elif count_animation(data) > 1 and hasattr(cv2, "imdecodeanimation"):  # from OpenCV 4.11 on
        yield from _animation(data)
    else:
        image = decode_stored(data, scale)
        if image is not None:
            yield Page(0, orient(image, read_orientation(data)))


def _animation(data: bytes) -> Iterator[Page]:
    """A few frames at a time: all at once may not fit the memory."""
    orientation = read_orientation(data)
    pixels = np.frombuffer(without_cut_frame(data), np.uint8)
    for start in range(0, count_animation(data), TOGETHER):
        try:
            _, some = cv2.imdecodeanimation(pixels, start, TOGETHER)
        except cv2.error:
            return
        frames = zip(some.frames, np.ravel(some.durations), strict=False)
        for index, (frame, milliseconds) in enumerate(frames, start):
            image = cv2.cvtColor(np.ascontiguousarray(frame[..., :3]), cv2.COLOR_BGR2RGB)
            seconds = float(milliseconds) / 1e3 or UNTIMED_S
            yield Page(index, orient(image, orientation), seconds)
        if len(some.frames) < TOGETHER:
            return


def decode_stored(data: bytes | bytearray, scale: To8Bits) -> np.ndarray | None:
    """Decode the first page as it is stored, to (H, W, 3) uint8 RGB; None where that fails.

    White is 1 in floats, which go beyond it in images of high dynamic range.
    """
    # Which files OpenCV turns as EXIF says changes with its releases: none here.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = _imdecode(data, flags | cv2.IMREAD_ANYDEPTH)
    if image is not None and image.dtype == np.uint16:
        image = scale(image)
    elif image is not None and np.issubdtype(image.dtype, np.floating):
        image = np.rint(255 * np.clip(np.nan_to_num(image), 0, 1)).astype(np.uint8)
    elif image is not None and image.dtype != np.uint8:  # of 32 bits, of which nobody knows white
        image = None
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _imdecode(data: bytes | bytearray, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:  # an image past OpenCV's own size limit
        return None


def write_image(path: Path, image: np.ndarray, quality: int) -> None:
    """Encode (H, W, 3) uint8 RGB into a file, whole or not at all.

    OpenCV sees no name but the suffix: some names crash it.

    Args:
        path: .jpg, .png or another suffix that OpenCV knows.
        image: to encode.
        quality: of a jpeg, 0 to 100.

    Raises:
        KdcError: the file cannot be written.
    """
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    suffix = path.suffix.lower()
    # OpenCV warns of the quality of a jpeg where it writes anything else.
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix in (".jpg", ".jpeg", ".jpe") else []
    _, encoded = cv2.imencode(suffix, bgr, options)
    with whole_file(path) as part:
        part.write_bytes(encoded.tobytes())


class Images:
    """Image files of a folder or an uncompressed tar, read by name on demand.

    Each read opens its file anew: several threads and processes may read at once.

    Raises:
        ImageError: the path is neither a folder nor a readable tar.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._members: dict[str, tuple[int, int]] | None = None
        if self.path.is_file():
            try:
                self._members = _read_members(self.path)
            except (tarfile.TarError, ValueError) as error:
                raise ImageError(
                    f"'{path}' is not a folder or an uncompressed tar of images: {error}"
                ) from error
        elif not self.path.is_dir():
            raise ImageError(f"no folder or tar of images at '{path}'")

    def read(self, name: str) -> np.ndarray:
        """Read one image as (H, W, 3) uint8 RGB.

        Raises:
            ImageError: it is missing, lies outside the folder or cannot be decoded.
        """
        return decode_image(self.read_bytes(name), name)

    def read_bytes(self, name: str) -> bytes:
        """Read one file as it is.

        Raises:
            ImageError: it is missing or lies outside the folder.
        """
        if self._members is not None:
            if name not in self._members:
                raise ImageError(f"'{name}' is not in '{self.path}'")
            offset, size = self._members[name]
            with open(self.path, "rb") as file:
                file.seek(offset)
                return file.read(size)
        # A name may not lead out of the folder; a link in the folder is the user's own.
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ImageError(f"'{name}' leads out of the folder '{self.path}'")
        path = self.path / name
        try:
            if path.exists() and not path.is_file():  # a pipe is waited for, a device has no end
                raise ImageError(f"cannot read '{path}': expected a regular file")
            return path.read_bytes()
        except OSError as error:
            raise ImageError(f"cannot read '{path}': {error.strerror}") from error
        except ValueError as error:  # a NUL in the name
            raise ImageError(f"{name!r} cannot be the name of a file: {error}") from error


def _read_members(path: Path) -> dict[str, tuple[int, int]]:
    """Start and length of each file in a tar, by name.

    Raises:
        TarError, ValueError: not a whole tar.
    """
    members = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            if member.size < 0:  # from which tarfile would go back, and on for ever
                raise tarfile.ReadError(f"'{member.name}' has {member.size} bytes")
            if member.isfile():
                members[member.name.removeprefix("./")] = member.offset_data, member.size
    return members
