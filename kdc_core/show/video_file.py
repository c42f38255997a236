"""A video file, whose frames last as long as each says."""

from __future__ import annotations

import os
from array import array
from pathlib import Path

import cv2
import numpy as np

from kdc_core.data.mp4 import NoIndex, retime
from kdc_core.errors import KdcError

RATE = 25.0  # that MPEG-4 can hold, while frames are written; the index has the true times


class VideoFile:
    """Writes an mp4, whole or not at all.

    Args:
        path: gets its name when it is closed.
        size: (height, width) of the video.

    Raises:
        KdcError: it cannot be written.
    """

    def __init__(self, path: Path, size: tuple[int, int]):
        self._path, self._size = path, size
        self._seconds = array("d")
        # OpenCV sees a name of ASCII: some others crash it.
        self._part = path.with_name(f".kdc-{os.getpid()}.part.mp4")
        try:
            self._folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise KdcError(f"cannot write '{path}': {error.strerror}") from error
        self._writer = cv2.VideoWriter(
            f"/proc/self/fd/{self._folder}/{self._part.name}",
            cv2.CAP_FFMPEG,
            cv2.VideoWriter.fourcc(*"mp4v"),
            RATE,
            size[::-1],
        )
        if not self._writer.isOpened():
            self._remove()
            raise KdcError(
                f"cannot write '{path}': OpenCV opens no MPEG-4 video of {size[1]}x{size[0]} there"
            )

    def write(self, image: np.ndarray, seconds: float) -> None:
        """Add a frame.

        Args:
            image: (H, W, 3) uint8 RGB; scaled where it is not of the video's size.
            seconds: for which it is shown.
        """
        if image.shape[:2] != self._size:
            image = cv2.resize(image, self._size[::-1])
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self._seconds.append(seconds)

    def close(self) -> None:
        """Finish the file.

        Raises:
            KdcError: it could not be written; nothing is left of it.
        """
        try:
            self._writer.release()  # which says nothing of a full disk
            with open(self._part, "r+b") as file:
                retime(file, self._seconds.tolist())
                os.fsync(file.fileno())
            os.replace(self._part, self._path)
        except NoIndex as error:
            raise KdcError(f"cannot write '{self._path}', is the disk full? {error}") from error
        except OSError as error:
            raise KdcError(f"cannot write '{self._path}': {error.strerror}") from error
        finally:
            self._remove()

    def _remove(self) -> None:
        os.close(self._folder)
        self._part.unlink(missing_ok=True)
