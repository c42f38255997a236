"""Overlay files: an image for an image, a video for a video."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kdc_core.codec.results import Prediction
from kdc_core.data.images import write_image
from kdc_core.data.sources import Frame
from kdc_core.errors import KdcError
from kdc_core.files import shortened
from kdc_core.inference.predictor import Predictor
from kdc_core.show.drawing import draw_people
from kdc_core.show.video_file import VideoFile

JPEG_QUALITY = 92
USUAL_SECONDS = 0.1  # a frame that says no duration


class OverlayWriter:
    """Writes overlays into a folder; use as a context manager, so that videos are finished.

    Sources of the same name get numbered names: nothing is overwritten within one run. Pages of
    an image file are images named by their number.

    Args:
        folder: made where it is missing.
        predictor: what found the people; gives bones and the threshold of keypoints.
        failed: called with the reason, once for each file that cannot be written.
    """

    def __init__(self, folder: Path, predictor: Predictor, failed: Callable[[str], None]):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.predictor, self._failed = folder, predictor, failed
        self._taken: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._video: VideoFile | None = None
        self._video_source = ""

    def write(self, frame: Frame, prediction: Prediction) -> None:
        """Draw and write one frame, whose image is there."""
        assert frame.image is not None
        # The same video may be given twice; of a camera's frames the first may be missing.
        begins = frame.source != self._video_source or frame.index == 0
        if frame.time is not None and not begins and not self._video:
            return  # of a video that cannot be written
        overlay = draw_people(
            frame.image, prediction, self.predictor.skeleton, self.predictor.thresholds.keypoint
        )
        try:
            if frame.time is None:
                write_image(self._path(frame, ".jpg"), overlay, JPEG_QUALITY)
                return
            if begins:
                self._finish_video()
                self._video_source = frame.source
                self._video = VideoFile(self._path(frame, ".mp4"), overlay.shape[:2])
            if self._video is not None:
                self._video.write(overlay, frame.duration or USUAL_SECONDS)
        except KdcError as error:
            self._failed(str(error))

    def _path(self, frame: Frame, suffix: str) -> Path:
        """A name in the folder that no other file of this run has."""
        stem = f"camera{frame.source}" if frame.source.isdecimal() else Path(frame.source).stem
        end = (
            suffix if frame.time is not None or frame.index is None else f"-{frame.index}{suffix}"
        )
        name = first = shortened(stem, end) + end
        while name in self._taken:
            number = self._numbers[first] = self._numbers.get(first, 1) + 1
            name = shortened(stem, f"-{number}{end}") + f"-{number}{end}"
        self._taken.add(name)
        return self.folder / name

    def _finish_video(self) -> None:
        video, self._video = self._video, None
        try:
            if video is not None:
                video.close()
        except KdcError as error:
            self._failed(str(error))

    def __enter__(self) -> OverlayWriter:
        return self

    def __exit__(self, *error: object) -> None:
        # A video cut short (camera stopped with Ctrl-C) is whole up to its last frame.
        self._finish_video()
