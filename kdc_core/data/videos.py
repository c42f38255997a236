"""Frames of video files and cameras, with the times at which they are shown."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from functools import cached_property
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np

from kdc_core.data.avi import count_repeats
from kdc_core.data.gif import GIF, is_cut
from kdc_core.data.matroska import count_frames, read_matroska
from kdc_core.data.mp4 import read_mp4
from kdc_core.data.orientation import orient
from kdc_core.errors import KdcError

USUAL_RATE = 10.0  # frames a second, where a source does not say
HIGHEST_RATE = 1000.0
MOST_FRAMES = 1e9  # more are no number of frames
# Reads in a row that give nothing, after which nothing more comes: each passes over a damaged
# frame, and behind the end they take hardly any time.
PATIENCE, MOST_PATIENCE = 256, 100_000
LATE = 1.0  # seconds behind the end of a file at which a frame of it may be
SHORTEST = 1e-4  # seconds from frame to frame
EVEN = 0.1  # steps by which a frame of a constant rate is early or late


class VideoError(KdcError):
    """A video or camera that cannot be opened."""


class Said(NamedTuple):
    """What a file's container says, read without OpenCV.

    Attributes:
        orientation: EXIF's 1 to 8, by which frames are turned and mirrored; None where OpenCV
            knows as much.
        exact: whether its number of frames is counted, not estimated from its duration.
        cut: whether the file ends before what it says it holds.
        seconds: its duration; None where OpenCV knows it, or nobody.
    """

    orientation: int | None = None
    exact: bool = False
    cut: bool = False
    seconds: float | None = None


class VideoFrame(NamedTuple):
    """One frame.

    Attributes:
        image: (H, W, 3) uint8 RGB as it is to be shown.
        time: at which it is shown, seconds from the beginning; later than the one before.
    """

    image: np.ndarray
    time: float


class _Times:
    """Times that rise from frame to frame, whatever a file says.

    Args:
        step: seconds from frame to frame, where it says nothing to be believed.
        end: of the file, seconds, or None.
    """

    def __init__(self, step: float, end: float | None):
        self._step, self._latest = step, math.inf if end is None else end + LATE
        self._last = -step
        self._frames = self._even = self._single = self._left_out = 0

    def following(self, said: float) -> float:
        """The time of the next frame, which the file says is this."""
        before, late = self._last, self._last - said
        if late < 0 and said <= self._latest:
            self._last = said
        else:  # shown for no time, or a leap
            self._last += SHORTEST if said > 0 and 0 <= late < 2 * self._step else self._step
        steps = (self._last - before) / self._step
        self._frames += 1
        self._even += abs(steps - round(steps)) < EVEN
        self._single += round(steps) == 1
        self._left_out += round(steps) - 1
        return max(0.0, self._last)

    @property
    def holes(self) -> int:
        """Frames left out of a constant rate; 0 where there is none."""
        constant = self._even == self._frames < 2 * self._single
        return self._left_out if constant else 0


class Video:
    """An opened video file or camera; close it after use.

    Iterating passes over damaged frames.

    Args:
        source: path, or number of a camera.

    Attributes:
        step: seconds from frame to frame at a constant rate.
        frames: that the file says it has, perhaps by estimate; None where it does not say.
        end: seconds at which the file says that its last frame ends, or None.
        missing: frames found missing, once all were read.

    Raises:
        VideoError: it cannot be opened.
    """

    def __init__(self, source: str):
        self.missing = 0
        self._camera, self._said = source.isdecimal(), Said()
        self._file: BinaryIO | None = None
        self._size = 0  # bytes at the beginning: a recording under way grows
        if self._camera:
            self._capture = cv2.VideoCapture(int(source))
        else:
            self._file, self._capture, self._said = _open(source)
            self._size = self._file.seek(0, 2)
        if not self._capture.isOpened():
            self.close()
            name = f"camera {source}" if self._camera else f"'{source}'"
            cut = ": the file is cut off" if self._said.cut else ""
            raise VideoError(f"{name} cannot be opened as a video{cut}")
        if self._said.orientation is not None:
            self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        rate, count = map(self._capture.get, (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        known = not self._camera and 0 < count < MOST_FRAMES
        self.step = 1 / (rate if 0 < rate <= HIGHEST_RATE else USUAL_RATE)
        self.frames = int(count) if known else None
        self.end = count / rate if known and 0 < rate < math.inf else None
        if self._said.seconds is not None and 0 < self._said.seconds < math.inf:
            self.end = self._said.seconds

    def close(self) -> None:
        """Free the file or camera."""
        self._capture.release()
        if self._file is not None:
            self._file.close()

    def __iter__(self) -> Iterator[VideoFrame]:
        """Read what is left, once."""
        begun, times = time.monotonic(), _Times(self.step, self.end)
        got = skipped = failed = 0
        while self._may_follow(got, failed):
            image = self._read()
            if image is None:
                failed += 1
                continue
            got, skipped, failed = got + 1, skipped + failed, 0
            said = time.monotonic() - begun if self._camera else self._position()
            yield VideoFrame(image, times.following(said))
        left, stored = (self.frames or 0) - got, self._stored
        # Where more were got than counted, something hid them from the count.
        if stored is not None and (self._said.exact or got <= stored):
            self.missing = max(0, stored - got)
        elif self._said.cut:
            self.missing = max(1, left, skipped)
        elif not self._camera:
            self.missing = max(skipped, times.holes)

    @cached_property
    def _stored(self) -> int | None:
        """Frames that the file holds, where they are counted; looks through all of it."""
        if self._file is None:
            return None
        said = (self.frames or 0) if self._said.exact else None
        try:
            if said is not None:
                return said - count_repeats(self._file, self._size)
            return None if self._said.cut else count_frames(self._file, self._size)
        except OSError:
            return said

    def _may_follow(self, got: int, failed: int) -> bool:
        """Whether a frame is expected yet after so many reads in a row that gave nothing."""
        if self._camera:
            return failed < 1
        if failed < PATIENCE:
            return True
        left = (self._stored or 0) - got
        return failed < PATIENCE + min(max(0, left), MOST_PATIENCE)

    def _read(self) -> np.ndarray | None:
        try:
            got, image = self._capture.read()
            if not got:
                return None
            return orient(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), self._said.orientation or 1)
        except cv2.error:  # a damaged frame of a size past all memory
            return None

    def _position(self) -> float:
        position = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
        return position if math.isfinite(position) else -math.inf


def _open(source: str) -> tuple[BinaryIO, cv2.VideoCapture, Said]:
    """Open a file under a name of ASCII: OpenCV takes others for patterns, or ends the process.

    FFmpeg opens it itself: what is read here moves nothing there.
    """
    try:
        file = open(source, "rb")
        try:
            said = _read_said(file)
            name = f"/proc/self/fd/{file.fileno()}"
            return file, cv2.VideoCapture(name, cv2.CAP_FFMPEG), said
        except BaseException:
            file.close()
            raise
    except OSError as error:
        raise VideoError(f"cannot read '{source}': {error.strerror}") from error


def _read_said(file: BinaryIO) -> Said:
    mp4 = read_mp4(file)
    if mp4 is not None:
        return Said(mp4.orientation, mp4.frames is not None, mp4.cut)
    file.seek(0)
    matroska = read_matroska(file)
    if matroska is not None:
        return Said(matroska.orientation, cut=matroska.cut, seconds=matroska.seconds)
    file.seek(0)
    head = file.read(12)
    if head.startswith(GIF):
        cut = is_cut(file)
        return Said(exact=not cut, cut=cut)
    return Said(exact=head[:4] == b"RIFF" and head[8:] == b"AVI ")
