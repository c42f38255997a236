"""Counters of the node, and the DiagnosticStatus made of them."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

WINDOW = 100  # frames over which latencies, and the fraction of unusable ones, are taken
UNUSABLE_FRACTION = 0.2  # of them; above, it is warned of
# A stamp further from the node's clock than this is from another clock.
CLOCKS_DISAGREE_S = 10.0


class Monitor:
    """What happened since the last configure; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.frames = self.lost = self.bad = self.faults = 0
        self.received = 0
        self.lost_since_input = 0
        self.faults_in_a_row = 0
        self.persons = 0
        self.last_error = ""
        self._heard_s = 0.0  # when the last image came, or the node began to wait for one
        self._unusable: deque[bool] = deque(maxlen=WINDOW)
        self._unusable_since_s: float | None = None  # when the first in a row came
        self._unusable_cause = ""  # of the last
        self._latency: deque[float] = deque(maxlen=WINDOW)
        self._model: deque[float] = deque(maxlen=WINDOW)
        self._ros: deque[float] = deque(maxlen=WINDOW)
        self._rates_at = 0.0
        self._rates_from = (0, 0)
        self._rates = (0.0, 0.0)

    def activated(self, now_s: float) -> None:
        with self._lock:
            self.faults_in_a_row = 0
            self._heard_s = now_s
            self._unusable.clear()
            self._unusable_since_s = None

    def got_image(self, now_s: float) -> None:
        with self._lock:
            self.received += 1
            self.lost_since_input = 0
            self._heard_s = now_s

    def got_result(self, persons: int, latency_s: float, model_ms: float, ros_ms: float) -> None:
        with self._lock:
            self._got_usable()
            self.frames += 1
            self.faults_in_a_row = 0
            self.persons = persons
            if 0 <= latency_s < CLOCKS_DISAGREE_S:
                self._latency.append(1e3 * latency_s)
            self._model.append(model_ms)
            self._ros.append(ros_ms)

    def got_bad_frame(self, reason: str, now_s: float) -> None:
        with self._lock:
            self.bad += 1
            self.last_error = self._unusable_cause = reason
            self._unusable.append(True)
            if self._unusable_since_s is None:
                self._unusable_since_s = now_s

    def got_fault(self, reason: str) -> None:
        with self._lock:
            self._got_usable()
            self.faults += 1
            self.faults_in_a_row += 1
            self.last_error = reason

    def _got_usable(self) -> None:
        self._unusable.append(False)
        self._unusable_since_s = None

    def got_lost(self, count: int) -> None:
        with self._lock:
            self.lost += count
            self.lost_since_input += count

    def rates(self, now_s: float) -> tuple[float, float]:
        """Images received and results published per second since the last call but one."""
        with self._lock:
            passed = now_s - self._rates_at
            if passed >= 0.5:
                received, frames = self._rates_from
                self._rates = (
                    (self.received - received) / passed,
                    (self.frames - frames) / passed,
                )
                self._rates_at = now_s
                self._rates_from = (self.received, self.frames)
            return self._rates

    def silence(self, now_s: float, timeout_s: float, topic: str, publishers: int) -> str:
        """Why no image comes, "" while they do.

        Args:
            now_s: by the clock of `got_image` and `activated`.
            timeout_s: from which it is told; 0 = never.
            topic: of the images.
            publishers: how many it has.
        """
        with self._lock:
            since_s, lost = now_s - self._heard_s, self.lost_since_input
        if not timeout_s or since_s <= timeout_s:
            return ""
        if not publishers:
            return f"no publisher on {topic}"
        if lost:
            return (
                f"images on {topic} are lost by the middleware: start the camera with "
                "config/fastdds_shm.xml, or let it publish reliable"
            )
        return f"no images on {topic} for {since_s:.0f} s"

    def none_usable(self, now_s: float, timeout_s: float, topic: str) -> str:
        """Why no image could be used for as long as `timeout_s`, "" while they can.

        Args:
            now_s: by the clock of `got_bad_frame`.
            timeout_s: 0 = never told.
            topic: of the images.
        """
        with self._lock:
            since_s, cause = self._unusable_since_s, self._unusable_cause
        if not timeout_s or since_s is None or now_s - since_s <= timeout_s:
            return ""
        return f"no image on {topic} could be used for {now_s - since_s:.0f} s: {cause}"

    def some_unusable(self, topic: str) -> str:
        """Why more than a fifth of the last images could not be used, "" else."""
        with self._lock:
            count, of, cause = sum(self._unusable), len(self._unusable), self._unusable_cause
        if count <= UNUSABLE_FRACTION * of:
            return ""
        return f"{count} of the last {of} images on {topic} could not be used, the last: {cause}"

    def values(self) -> dict[str, str]:
        """Counters and medians by name."""
        with self._lock:
            return {
                "frames": str(self.frames),
                "lost": str(self.lost),
                "bad": str(self.bad),
                "faults": str(self.faults),
                "persons": str(self.persons),
                "latency_ms_p50": _percentile(self._latency, 50),
                "latency_ms_p95": _percentile(self._latency, 95),
                "model_ms_p50": _percentile(self._model, 50),
                "ros_ms_p50": _percentile(self._ros, 50),
                "last_error": self.last_error,
            }


def _percentile(values: deque[float], percent: float) -> str:
    return f"{np.percentile(list(values), percent):.1f}" if values else "n/a"


def make_status(
    name: str, hardware: str, level: bytes, message: str, values: dict[str, str]
) -> DiagnosticStatus:
    """One DiagnosticStatus."""
    return DiagnosticStatus(
        name=name,
        hardware_id=hardware,
        level=level,
        message=message,
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )
