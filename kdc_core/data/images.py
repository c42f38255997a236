"""Image files by name, from a folder or a tar."""

from __future__ import annotations

import os
import tarfile
import threading
from pathlib import Path

import cv2
import numpy as np

from kdc_core.errors import KdcError
from kdc_core.files import whole_file


class ImageError(KdcError):
    """An image file that cannot be read; the text names it."""


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decode an encoded image to (H, W, 3) uint8 RGB.

    Raises:
        ImageError: the bytes are not an image OpenCV can read.
    """
    buffer = np.frombuffer(data, np.uint8)
    try:
        image = cv2.imdecode(buffer, cv2.IMREAD_COLOR) if buffer.size else None
    except cv2.error:  # an image past OpenCV's own size limit
        image = None
    if image is None:
        raise ImageError(
            f"'{name}' cannot be read as an image: expected a complete jpeg, png, bmp, webp or "
            f"tiff, got {len(data)} bytes starting {data[:8]!r}"
        )
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


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
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    _, encoded = cv2.imencode(path.suffix.lower(), bgr, options)
    with whole_file(path) as part:
        part.write_bytes(encoded.tobytes())


class Images:
    """Image files of a folder or an uncompressed tar, read by name on demand.

    One tar is opened once per process and may be read from several threads.

    Raises:
        ImageError: the path is neither a folder nor a readable tar.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._members: dict[str, tuple[int, int]] | None = None
        if self.path.is_file():
            try:
                with tarfile.open(self.path, "r:") as tar:
                    self._members = {
                        m.name.removeprefix("./"): (m.offset_data, m.size)
                        for m in tar
                        if m.isfile()
                    }
            except tarfile.TarError as error:
                raise ImageError(
                    f"'{path}' is not a folder or an uncompressed tar of images: {error}"
                ) from error
        elif not self.path.is_dir():
            raise ImageError(f"no folder or tar of images at '{path}'")
        self._lock = threading.Lock()

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
            with self._lock, open(self.path, "rb") as file:
                file.seek(offset)
                return file.read(size)
        try:
            path = (self.path / name).resolve()
        except ValueError as error:  # a NUL in the name
            raise ImageError(f"{name!r} cannot be the name of a file: {error}") from error
        if not path.is_relative_to(self.path.resolve()):
            raise ImageError(f"'{name}' leads out of the folder '{self.path}'")
        try:
            return path.read_bytes()
        except OSError as error:
            raise ImageError(f"cannot read '{path}': {error.strerror}") from error
