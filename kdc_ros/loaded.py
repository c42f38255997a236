"""What configure loads and cleanup frees: the model, its outputs, the worker that feeds them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

from rclpy.node import Node

from kdc_core.errors import KdcError
from kdc_core.inference.engine.lock import BuildProgress
from kdc_ros.converter import Converter
from kdc_ros.diagnostics import Monitor
from kdc_ros.live_view import open_view
from kdc_ros.model import open_predictor
from kdc_ros.outputs import Outputs
from kdc_ros.outputs_3d import Outputs3d
from kdc_ros.parameters import Settings
from kdc_ros.processing import Processing
from kdc_ros.publishers import all_or_none
from kdc_ros.worker import LatestBox, Worker

# Beyond `stall_timeout`, for a frame that has a program built for it, which may not be stopped.
BUILD_S = 30.0
POLL_S = 0.2
STUCK = "a frame is still in work after stall_timeout: if it never ends, restart the process"


class Loaded:
    """The model, ready, and the publishers. It works on frames from `start` to `stop`.

    Args:
        node: creates the publishers.
        convert: reads messages.
        monitor: counts.
        settings: gives the parameters in force.
        enabled: whether frames are processed, and people published, at all.
        on_build: told what the build of an engine does, in the thread that waits for it.
        stopping: set where the process is to end.

    Attributes:
        predictor, outputs, processing: of the frames.
        outputs_3d: None = not enabled.
        view: None = not enabled.
        worker: None = no frame is in work.
        freeing: the thread that frees the model once the frame ends that hangs in it.

    Raises:
        KdcError: the model cannot be used; whatever was made until then is freed.
    """

    def __init__(
        self,
        node: Node,
        convert: Converter,
        monitor: Monitor,
        settings: Callable[[], Settings],
        enabled: Callable[[], bool],
        on_build: BuildProgress,
        stopping: threading.Event,
    ):
        now = settings()
        self._settings, self._on_build, self._stopping = settings, on_build, stopping
        self._monitor = monitor
        self._leaving = threading.Event()  # set from stop to start
        self.worker: Worker | None = None
        self.freeing: threading.Thread | None = None
        with ExitStack() as made:
            self.predictor = open_predictor(now, self._tell_build, self._gives_up)
            made.callback(self._close_model)
            skeleton = self.predictor.skeleton
            with all_or_none(node):
                self.outputs = Outputs(node, skeleton, now.hri)
                self.outputs_3d = Outputs3d(node, skeleton, enabled) if now.enable_3d else None
            made.callback(self.outputs.destroy)
            if self.outputs_3d is not None:
                made.callback(self.outputs_3d.destroy)
                made.callback(self.outputs_3d.close)
            self.view = open_view(node, skeleton) if now.view else None
            if self.view is not None:
                made.callback(self.view.close)
            self.processing = Processing(
                node,
                self.predictor,
                self.outputs,
                self.outputs_3d,
                self.view,
                convert,
                monitor,
                settings,
                enabled,
            )
            self._made = made.pop_all()

    def _gives_up(self) -> bool:
        """Whether an engine that is being built will not be used."""
        return self._stopping.is_set() or self._leaving.is_set()

    def _tell_build(self, phase: str, done: int, total: int) -> None:
        if not self._stopping.is_set():
            self._on_build(phase, done, total)

    def start(self, box: LatestBox) -> None:
        """Work on the frames of a box.

        Raises:
            KdcError: a frame from before still hangs.
        """
        if self.worker is not None and not self.worker.stop(0.0):
            raise KdcError(STUCK)
        if self.outputs_3d is not None:
            self.outputs_3d.open()
        self.worker = Worker(box, self.processing.begin, self._settings().pipeline)
        self.processing.abandoned = False
        self.processing.start_anew()
        self._leaving.clear()

    def stop(self) -> bool:
        """Wait for the frames in work; one that hangs is given up, and waited for no more.

        Returns:
            Whether one was given up just now.
        """
        self._leaving.set()
        before = self.processing.abandoned
        limit_s: float | None = 0.0 if before else self._settings().stall_timeout
        if self._stopping.is_set():
            limit_s = None  # main ends the process if it takes too long
        if self.worker is not None:
            if self.worker.stop(limit_s) or not before and self._build_ends(self.worker):
                self.worker = None
            else:
                self.processing.abandoned = True
        if self.outputs_3d is not None:
            self.outputs_3d.close()
        return self.processing.abandoned and not before

    def _build_ends(self, worker: Worker) -> bool:
        """Wait for a frame that has a program built for it; where none is, do not."""
        until = time.monotonic() + BUILD_S
        while self._monitor.building and time.monotonic() < until and not self._stopping.is_set():
            if worker.stop(POLL_S):
                return True
        return worker.stop(0.0)

    def free(self) -> None:
        """Free everything, whatever of it fails; a failure is raised at the end."""
        self._made.close()

    def _close_model(self) -> None:
        if self.worker is None:
            self.predictor.close()
        else:  # a frame hangs in it
            self.freeing = threading.Thread(
                target=self._close_later, args=(self.worker,), daemon=True
            )
            self.freeing.start()

    def _close_later(self, worker: Worker) -> None:
        worker.stop()
        self.predictor.close()
