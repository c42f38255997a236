"""Overlay files: an image for an image, a video for a video."""

from __future__ import annotations

from pathlib import Path

import cv2

from kdc_core.codec.results import Prediction
from kdc_core.data.images import write_image
from kdc_core.data.sources import Frame
from kdc_core.errors import KdcError
from kdc_core.inference.predictor import Predictor
from kdc_core.show.drawing import draw_people

JPEG_QUALITY = 92


class OverlayWriter:
    """Writes overlays into a folder; use as a context manager, so that videos are finished.

    Sources of the same name in different folders get numbered names: nothing is overwritten
    within one run.

    Args:
        folder: made where it is missing.
        predictor: what found the people; gives bones and the threshold of keypoints.
    """

    def __init__(self, folder: Path, predictor: Predictor):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.predictor = folder, predictor
        self._names: dict[str, Path] = {}
        self._video: cv2.VideoWriter | None = None
        self._video_source = ""
        self._video_part = Path()

    def write(self, frame: Frame, prediction: Prediction) -> None:
        """Draw and write one frame, whose image is there.

        Raises:
            KdcError: the file cannot be written.
        """
        assert frame.image is not None
        overlay = draw_people(
            frame.image, prediction, self.predictor.skeleton, self.predictor.thresholds.keypoint
        )
        if frame.index is None:
            write_image(self._name(frame.source, ".jpg"), overlay, JPEG_QUALITY)
            return
        if self._video is None or self._video_source != frame.source:
            self._finish_video()
            self._video_source = frame.source
            path = self._name(frame.source, ".mp4")
            self._video_part = path.with_name(f".{path.stem}.part.mp4")
            height, width = overlay.shape[:2]
            self._video = cv2.VideoWriter(
                str(self._video_part),
                cv2.VideoWriter.fourcc(*"mp4v"),
                frame.rate or 10.0,
                (width, height),
            )
            if not self._video.isOpened():
                raise KdcError(f"cannot write a video to '{path}'")
        self._video.write(cv2.cvtColor(overlay, cv2.COLOR_RGB2BGR))

    def _name(self, source: str, suffix: str) -> Path:
        if source not in self._names:
            stem = f"camera{source}" if source.isdigit() else Path(source).stem
            path, number = self.folder / f"{stem}{suffix}", 2
            while path in self._names.values():
                path, number = self.folder / f"{stem}-{number}{suffix}", number + 1
            self._names[source] = path
        return self._names[source]

    def _finish_video(self) -> None:
        if self._video is not None:
            self._video.release()
            self._video_part.replace(self._names[self._video_source])
            self._video = None

    def __enter__(self) -> OverlayWriter:
        return self

    def __exit__(self, *error: object) -> None:
        # A video cut short (camera stopped with Ctrl-C) is whole up to its last frame.
        self._finish_video()
