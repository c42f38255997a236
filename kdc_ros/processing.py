"""What the worker does with each frame: converts it, finds and follows its people, publishes."""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from rclpy.node import Node

from kdc_core.codec.results import Prediction
from kdc_core.inference.assembly import Thresholds, narrowed
from kdc_core.inference.engine.messages import BuildCancelled
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.runtimes.protocol import Pending
from kdc_core.inference.smoothing import Smoother
from kdc_core.inference.tracking import Tracker, tracking_thresholds
from kdc_ros.converter import Converter
from kdc_ros.depth import DepthMatch
from kdc_ros.diagnostics import CLOCKS_DISAGREE_S, Monitor
from kdc_ros.image_input import Message
from kdc_ros.images import BadFrame
from kdc_ros.outputs import Outputs
from kdc_ros.outputs_3d import Outputs3d
from kdc_ros.parameters import Settings
from kdc_ros.region import OutsideError, Region
from kdc_ros.stamps import stamp_s
from kdc_ros.timers import STEADY

if TYPE_CHECKING:
    from kdc_core.show.view import View

LONGEST_PUBLISHING_S = 1.0  # of a frame; the executor's thread waits no longer for it
UNSURE = 0.1  # score from which people are hidden in pictures that are to show nobody
THROTTLED: dict[str, Any] = {"throttle_duration_sec": 5.0, "throttle_time_source_type": STEADY}
Done = TypeVar("Done")


@dataclass(frozen=True)
class FrameInWork:
    """A frame under way.

    Attributes:
        image: the message.
        pixels: it as (H, W, 3) uint8 RGB.
        settings: one snapshot for the whole frame: parameters may change while it is in work.
        region: of the image, None = all of it.
        pending: people of the region.
        depth: of the image, None = none is used.
        unsure: people too unsure to be published are among the pending ones.
        converted_s: how long converting it took.
    """

    image: Message
    pixels: np.ndarray
    settings: Settings
    region: Region | None
    pending: Pending[Prediction]
    depth: DepthMatch | None
    unsure: bool
    converted_s: float


class Processing:
    """From an image message to published people. Lives from configure to cleanup.

    Args:
        node: for its clock and log.
        predictor: finds the people.
        outputs: publishes them.
        outputs_3d: publishes them in metres; None = not enabled.
        view: shows them in a browser; None = not enabled.
        convert: reads messages.
        monitor: counts.
        settings: gives the parameters in force.
        enabled: whether frames are processed, and people published, at all.

    Attributes:
        abandoned: whether what is still in work is not published any more.
    """

    def __init__(
        self,
        node: Node,
        predictor: Predictor,
        outputs: Outputs,
        outputs_3d: Outputs3d | None,
        view: View | None,
        convert: Converter,
        monitor: Monitor,
        settings: Callable[[], Settings],
        enabled: Callable[[], bool],
    ):
        self._node, self._predictor = node, predictor
        self._outputs, self._outputs_3d, self._view = outputs, outputs_3d, view
        self._convert, self._monitor, self._settings = convert, monitor, settings
        self._enabled = enabled
        self.abandoned = False
        self._last_due = -math.inf  # when the last frame that was taken was due
        self._tracker_lock, self._publish_lock = threading.Lock(), threading.Lock()
        self._tracker = Tracker(predictor.skeleton, settings().track_timeout)
        self._smoother = Smoother()

    @property
    def idle(self) -> bool:
        """Whether frames are left out because nobody subscribes to what would come of them."""
        return self._is_idle(self._settings())

    def _is_idle(self, settings: Settings) -> bool:
        listened_3d = self._outputs_3d is not None and self._outputs_3d.subscribed
        shown = self._view is not None and not self._view.ended
        listened = self._outputs.subscribed or listened_3d or shown
        return settings.lazy and not listened

    def forget_people(self) -> None:
        """Forget who is followed; ids begin with 1 again."""
        with self._tracker_lock:
            self._tracker.reset()
            self._smoother = Smoother()

    def fall_silent(self) -> None:
        """Say that nobody is seen; to be called once no more people are to be published."""
        if self._publish_lock.acquire(timeout=LONGEST_PUBLISHING_S):
            try:
                self._outputs.clear()
            finally:
                self._publish_lock.release()

    def start_anew(self) -> None:
        """Take the next frame, however soon it comes and however those before it went."""
        self._last_due = -math.inf
        self._monitor.forget_frames()

    def begin(self, image: Message) -> Callable[[], None] | None:
        """Start on a frame; what is returned publishes its people, None = it is done with."""
        return self._count_failure(partial(self._begin, image))

    def _begin(self, image: Message) -> Callable[[], None] | None:
        settings = self._settings()
        idle = self._is_idle(settings)
        if idle:
            self._monitor.forget_frames()
        if not self._enabled() or idle or self._too_soon(settings.max_rate):
            self._monitor.got_skipped()
            return None
        begun_s = time.monotonic()
        self._monitor.began(begun_s)
        begun = self._count_failure(partial(self._submit, image, settings))
        if begun is None:
            self._monitor.ended(begun_s)
            return None
        return partial(self._end, begun, begun_s)

    def _too_soon(self, max_rate: float) -> bool:
        if not max_rate:
            return False
        now, period = time.monotonic(), 1 / max_rate
        due = self._last_due + period
        if now < due:
            return True
        # From the time that it was due, so that the rate is kept; after a gap from now.
        self._last_due = due if now - due < period else now
        return False

    def _submit(self, image: Message, settings: Settings) -> FrameInWork:
        before = time.monotonic()
        depth = None if self._outputs_3d is None else self._outputs_3d.match(image.header)
        pixels = self._convert(image)
        region = settings.region
        try:
            part = pixels if region is None else region.cut(pixels)
        except OutsideError as error:
            raise BadFrame(str(error)) from error
        converted_s = time.monotonic() - before
        unsure, thresholds = self._outputs.hides_people, _thresholds_of(settings)
        self._predictor.rotate = settings.rotation
        pending = self._predictor.submit(
            part, thresholds.lowered(UNSURE) if unsure else thresholds
        )
        return FrameInWork(image, pixels, settings, region, pending, depth, unsure, converted_s)

    def _end(self, begun: FrameInWork, begun_s: float) -> None:
        self._count_failure(partial(self._publish, begun))
        self._monitor.ended(begun_s)

    def _publish(self, begun: FrameInWork) -> None:
        settings, taken_s = begun.settings, stamp_s(begun.image.header)
        prediction = begun.pending.collect()
        predicted = time.monotonic()
        if begun.region is not None:
            prediction = begun.region.back(prediction, begun.pixels.shape[:2])
        everybody = prediction if begun.unsure else None
        if begun.unsure:
            prediction = narrowed(prediction, _thresholds_of(settings))
        if settings.min_area:
            large = tuple(p for p in prediction.persons if p.area >= settings.min_area)
            prediction = replace(prediction, persons=large)
        if settings.tracking:
            prediction = self._follow(prediction, settings, taken_s or time.monotonic())
        with self._publish_lock:
            if self.abandoned or not self._enabled():
                return
            self._outputs.publish(
                begun.image.header,
                begun.pixels,
                prediction,
                settings,
                everybody,
            )
            if self._outputs_3d is not None and begun.depth is not None:
                self._outputs_3d.publish(begun.image.header, prediction, begun.depth, settings)
        ros_ms = 1e3 * (begun.converted_s + time.monotonic() - predicted)
        model_ms = prediction.timings_ms["model"]
        now_s = 1e-9 * self._node.get_clock().now().nanoseconds
        # Negative where the image has no stamp.
        latency_s = now_s - taken_s if taken_s else -1.0
        self._monitor.got_result(len(prediction), latency_s, model_ms, ros_ms)
        if self._view is not None and not self._view.ended:
            milliseconds = {"model": model_ms, "ros": ros_ms}
            if 0 <= latency_s < CLOCKS_DISAGREE_S:
                milliseconds["latency"] = 1e3 * latency_s
            threshold = settings.keypoint_threshold
            self._view.show(begun.pixels, prediction, threshold, milliseconds, taken_s or None)

    def _follow(self, prediction: Prediction, settings: Settings, time_s: float) -> Prediction:
        with self._tracker_lock:
            self._tracker.timeout_s = settings.track_timeout
            self._tracker.confidence = settings.confidence
            prediction = self._tracker(prediction, time_s)
            self._monitor.got_tracks(self._tracker.lost, self._tracker.regained)
            return self._smoother(prediction, time_s) if settings.smoothing else prediction

    def _count_failure(self, work: Callable[[], Done]) -> Done | None:
        """Do a part of a frame; None where it fails, which is counted, and the next one comes."""
        logger = self._node.get_logger()
        try:
            return work()
        except BuildCancelled as error:  # by a deactivation
            self._monitor.got_skipped()
            logger.info(str(error))
        except BadFrame as error:
            self._monitor.got_bad_frame(str(error), time.monotonic())
            logger.warning(f"bad frame: {error}", **THROTTLED)
        except Exception as error:
            self._monitor.got_fault(f"{type(error).__name__}: {error}")
            logger.error(traceback.format_exc(), **THROTTLED)
        finally:
            self._monitor.ended_build()
        return None


def _thresholds_of(settings: Settings) -> Thresholds:
    """With which to find the people; a tracker leaves out those that are faint and new."""
    return tracking_thresholds(settings.thresholds) if settings.tracking else settings.thresholds
