"""Frames as what rerun's viewer draws; the one module that imports rerun."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import rerun as rr
import rerun.blueprint as rrb

from kdc_core.codec.results import Prediction, number_of
from kdc_core.codec.skeleton import Skeleton
from kdc_core.show.drawing import MASK_ALPHA, PALETTE, color_of

JPEG_QUALITY = 80
TIMEOUT_S = 5.0  # for the server to begin, to take a frame, and to end


@dataclass(frozen=True)
class Shown:
    """A frame as it is shown.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        prediction: its people.
        keypoint_threshold: keypoints below are not shown.
        milliseconds: durations by name.
        rate: frames per second.
        time_s: of the frame, seconds; None = it has none.
    """

    image: np.ndarray
    prediction: Prediction
    keypoint_threshold: float
    milliseconds: Mapping[str, float]
    rate: float
    time_s: float | None


class Stream:
    """Sends frames to a server of rerun.

    Args:
        skeleton: of the people.
        source: address of the server.
    """

    def __init__(self, skeleton: Skeleton, source: str):
        self._skeleton = skeleton
        self._keypoints = [
            rr.AnnotationInfo(id=index, label=name)
            for index, name in enumerate(skeleton.keypoints)
        ]
        self._recording = rr.RecordingStream("kdc")
        self._recording.connect_grpc(source, default_blueprint=_layout())
        for index, color in enumerate(PALETTE):
            points = rr.SeriesPoints(colors=color, markers="square", marker_sizes=3)
            self._recording.log(f"ids/{index}", points, static=True)
        self._path, self._sent = "", 0

    def send(self, shown: Shown) -> None:
        """Send a frame and wait until the server has it.

        Raises:
            RuntimeError: the server is gone, or did not take it in time.
        """
        recording, prediction = self._recording, shown.prediction
        recording.set_time("frame", sequence=self._sent)
        if shown.time_s is not None:
            recording.set_time("time", timestamp=shown.time_s)
        self._sent += 1
        height, width = prediction.size
        path = f"people/{width}x{height}"
        if path != self._path:  # the viewer takes JPEGs of one path for a video of one size
            if self._path:
                recording.log(self._path, rr.Clear(recursive=True))
            self._path = path
        recording.log("people", self._classes(prediction))
        recording.log(path, rr.Image(shown.image).compress(jpeg_quality=JPEG_QUALITY))
        numbers = np.array(_numbers(prediction), np.uint16)
        classes = np.insert(numbers, 0, 0)[prediction.labels]
        recording.log(f"{path}/masks", rr.SegmentationImage(classes, opacity=MASK_ALPHA))
        recording.log(f"{path}/skeletons", self._points(shown, numbers))
        boxes = np.array([person.box for person in prediction.persons]).reshape(-1, 4)
        recording.log(
            f"{path}/boxes",
            rr.Boxes2D(array=boxes, array_format=rr.Box2DFormat.XYXY, class_ids=numbers),
        )
        self._plot(shown, numbers)
        recording.flush(timeout_sec=TIMEOUT_S)

    def close(self) -> None:
        """Take leave of the server, which must still be there."""
        self._recording.disconnect()

    def _classes(self, prediction: Prediction) -> rr.AnnotationContext:
        """Each person is a class, whose id, name and color are the person's."""
        return rr.AnnotationContext(
            [
                rr.AnnotationInfo(id=0, color=(0, 0, 0, 0)),
                *(
                    rr.ClassDescription(
                        info=rr.AnnotationInfo(
                            id=number_of(person, index),
                            label=str(number_of(person, index)),
                            color=color_of(person, index),
                        ),
                        keypoint_annotations=self._keypoints,
                        keypoint_connections=self._skeleton.bones,
                    )
                    for index, person in enumerate(prediction.persons)
                ),
            ]
        )

    def _points(self, shown: Shown, numbers: np.ndarray) -> rr.Points2D:
        """The visible keypoints of all people; the viewer joins those of a class."""
        people = shown.prediction.persons
        keypoints = np.array([person.keypoints for person in people], np.float32)
        keypoints = keypoints.reshape(len(people), self._skeleton.num_keypoints, 3)
        person, keypoint = np.nonzero(keypoints[..., 2] >= shown.keypoint_threshold)
        return rr.Points2D(
            keypoints[person, keypoint, :2],
            class_ids=numbers[person],
            keypoint_ids=keypoint,
            show_labels=False,
        )

    def _plot(self, shown: Shown, numbers: np.ndarray) -> None:
        """Who is there, in the color of each; how long a frame takes, and how many come."""
        slots = (numbers - 1) % len(PALETTE)
        for slot in np.unique(slots):
            self._recording.log(f"ids/{slot}", rr.Scalars(numbers[slots == slot]))
        for name, value in shown.milliseconds.items():
            self._recording.log(f"milliseconds/{name}", rr.Scalars(value))
        self._recording.log("rate/frames_per_second", rr.Scalars(shown.rate))


def _numbers(prediction: Prediction) -> list[int]:
    return [number_of(person, index) for index, person in enumerate(prediction.persons)]


def _layout() -> rrb.Blueprint:
    """The people on the left, the plots on the right."""
    return rrb.Blueprint(
        rrb.Horizontal(
            rrb.Spatial2DView(origin="people", name="people"),
            rrb.Vertical(
                rrb.TimeSeriesView(
                    origin="ids", name="ids", plot_legend=rrb.PlotLegend(visible=False)
                ),
                rrb.TimeSeriesView(origin="milliseconds", name="milliseconds"),
                rrb.TimeSeriesView(origin="rate", name="frames per second"),
            ),
            column_shares=[2, 1],
        ),
        rrb.TimePanel(timeline="frame", play_state="following", state="collapsed"),
        rrb.BlueprintPanel(state="collapsed"),
        rrb.SelectionPanel(state="collapsed"),
    )
