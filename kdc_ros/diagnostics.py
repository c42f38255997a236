"""Counters of the node, and what they say of its health."""

from __future__ import annotations

import os
import threading
from collections import deque

import numpy as np

WINDOW = 100  # frames over which latencies, and the fraction of unusable ones, are taken
UNUSABLE_FRACTION = 0.2  # of them; above, it is warned of
LOSS_ADVICE = "start the camera with config/fastdds_shm.xml, or let it publish reliable"
LOSS_S = 10.0  # seconds over which the share of lost images is taken
LOST_SHARE = 0.2  # of the images sent; above, it is warned of
BEHIND_MS = 1000.0  # between an image's stamp and its people; above, it is warned of
BEHIND_FRAMES = 3  # in a row
LEAST_UNUSABLE = 2  # in a row, before it is said that none can be used: one says little of others
# A stamp further from the node's clock than this is from another clock.
CLOCKS_DISAGREE_S = 10.0


class Monitor:
    """What happened since the last configure; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.frames = self.lost = self.bad = self.faults = self.skipped = 0
        self.received = 0
        self.lost_since_input = 0
        self.faults_in_a_row = 0
        self.persons = 0
        self.tracks_lost = self.tracks_regained = 0
        self.last_error = ""
        self.building = ""  # what the build of a program does, while one is under way
        self._builder = 0  # the thread that waits for it
        self._begun_s: list[float] = []  # when the frames in work were begun
        # Of the last seconds: when, how many images came, how many were lost.
        self._came: deque[tuple[float, int, int]] = deque()
        self._heard_s = 0.0  # when the last image came, or the node began to wait for one
        self._unusable: deque[bool] = deque(maxlen=WINDOW)
        self._unusable_since_s: float | None = None  # when the first in a row came
        self._unusable_in_a_row = 0
        self._unusable_cause = ""  # of the last
        self._latency: deque[float] = deque(maxlen=WINDOW)
        self._recent: deque[float] = deque(maxlen=BEHIND_FRAMES)
        self._model: deque[float] = deque(maxlen=WINDOW)
        self._ros: deque[float] = deque(maxlen=WINDOW)
        self._rates_at = 0.0
        self._rates_from = (0, 0)
        self._rates = (0.0, 0.0)

    def activated(self, now_s: float) -> None:
        with self._lock:
            self.faults_in_a_row = 0
            self._heard_s = now_s
            self._came.clear()
        self.forget_frames()

    def forget_frames(self) -> None:
        """Forget how the last frames went: those to come are of other circumstances."""
        with self._lock:
            self._unusable.clear()
            self._end_unusable()
            self._recent.clear()

    def builds(self, text: str) -> None:
        """What the build does that this thread waits for."""
        with self._lock:
            self.building, self._builder = text, threading.get_ident()

    def ended_build(self) -> None:
        """This thread waits for none any more."""
        with self._lock:
            if self._builder == threading.get_ident():
                self.building = ""

    def got_image(self, now_s: float) -> None:
        with self._lock:
            self.received += 1
            self.lost_since_input = 0
            self._heard_s = now_s
            self._count(now_s, 1, 0)

    def began(self, now_s: float) -> None:
        """Work on a frame began."""
        with self._lock:
            self._begun_s.append(now_s)

    def ended(self, begun_s: float) -> None:
        """That on the frame that began then ended; another may have begun earlier."""
        with self._lock:
            self._begun_s.remove(begun_s)

    def got_tracks(self, lost: int, regained: int) -> None:
        """People who went out of sight so far, and those of them who came back."""
        with self._lock:
            self.tracks_lost, self.tracks_regained = lost, regained

    def got_result(self, persons: int, latency_s: float, model_ms: float, ros_ms: float) -> None:
        with self._lock:
            self._got_usable()
            self.frames += 1
            self.faults_in_a_row = 0
            self.persons = persons
            if 0 <= latency_s < CLOCKS_DISAGREE_S:
                self._latency.append(1e3 * latency_s)
                self._recent.append(1e3 * latency_s)
            else:  # nor do those before it tell how late people are now
                self._latency.clear()
                self._recent.clear()
            self._model.append(model_ms)
            self._ros.append(ros_ms)

    def got_bad_frame(self, reason: str, now_s: float) -> None:
        with self._lock:
            self.bad += 1
            self.last_error = self._unusable_cause = reason
            self._unusable.append(True)
            self._unusable_in_a_row += 1
            if self._unusable_since_s is None:
                self._unusable_since_s = now_s

    def got_skipped(self) -> None:
        """An image was not to be processed."""
        with self._lock:
            self.skipped += 1

    def got_fault(self, reason: str) -> None:
        with self._lock:
            self._got_usable()
            self.faults += 1
            self.faults_in_a_row += 1
            self.last_error = reason

    def _got_usable(self) -> None:
        self._unusable.append(False)
        self._end_unusable()

    def _end_unusable(self) -> None:
        self._unusable_since_s, self._unusable_in_a_row = None, 0

    def got_lost(self, count: int, now_s: float) -> None:
        with self._lock:
            self.lost += count
            self.lost_since_input += count
            self._count(now_s, 0, count)

    def _count(self, now_s: float, came: int, lost: int) -> None:
        """Put images to those of the last seconds; those of a tenth of a second are one entry."""
        if self._came and now_s - self._came[-1][0] < LOSS_S / 100:
            since_s, before, lost_before = self._came[-1]
            self._came[-1] = since_s, before + came, lost_before + lost
        else:
            self._came.append((now_s, came, lost))
        self._forget(now_s)

    def _forget(self, now_s: float) -> None:
        while self._came and now_s - self._came[0][0] > LOSS_S:
            self._came.popleft()

    def rates(self, now_s: float) -> tuple[float, float]:
        """Images received and results published per second since the previous call.

        Calls less than half a second apart get the same figures.
        """
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

    def silent(self, now_s: float, timeout_s: float) -> bool:
        """Whether no image has come for so long; arguments as for `silence`."""
        with self._lock:
            return 0 < timeout_s < now_s - self._heard_s

    def silence(self, now_s: float, timeout_s: float, topic: str, publishers: int) -> str:
        """Why no image comes, "" while they do.

        Args:
            now_s: by the clock of `got_image` and `activated`.
            timeout_s: from which it is told; 0 = never.
            topic: of the images.
            publishers: how many it has.
        """
        if not self.silent(now_s, timeout_s):
            return ""
        with self._lock:
            since_s, lost = now_s - self._heard_s, self.lost_since_input
        if not publishers:
            return f"no publisher on {topic}"
        if lost:
            return f"images on {topic} are lost by the middleware: {LOSS_ADVICE}"
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
            count = self._unusable_in_a_row
        if not timeout_s or since_s is None or now_s - since_s <= timeout_s:
            return ""
        if count < LEAST_UNUSABLE:
            return ""
        return f"no image on {topic} could be used for {now_s - since_s:.0f} s: {cause}"

    def some_unusable(self, topic: str) -> str:
        """Why more than a fifth of the last images could not be used, "" else."""
        with self._lock:
            count, of, cause = sum(self._unusable), len(self._unusable), self._unusable_cause
        if count <= UNUSABLE_FRACTION * of:
            return ""
        return f"{count} of the last {of} images on {topic} could not be used, the last: {cause}"

    def losses(self, now_s: float, topic: str) -> str:
        """Why more than a fifth of the images of the last seconds did not arrive, "" else."""
        with self._lock:
            self._forget(now_s)
            came = sum(entry[1] for entry in self._came)
            lost = sum(entry[2] for entry in self._came)
        if lost <= LOST_SHARE * (came + lost):
            return ""
        return (
            f"{lost} of {came + lost} images on {topic} were lost by the middleware within "
            f"{LOSS_S:.0f} s: {LOSS_ADVICE}"
        )

    def behind(self) -> str:
        """That people come long after their images, "" while they do not."""
        with self._lock:
            last = list(self._recent)
        if len(last) < BEHIND_FRAMES or min(last) <= BEHIND_MS:
            return ""
        return (
            f"people come {last[-1] / 1e3:.1f} s after their images' stamps: the model is too "
            "slow here, or the camera's clock is another"
        )

    def stalled(self, now_s: float, timeout_s: float) -> str:
        """That a frame has been in work for longer than `timeout_s`, "" while none has."""
        with self._lock:
            since_s = now_s - self._begun_s[0] if self._begun_s else 0.0
        return f"a frame has been in work for {since_s:.0f} s" if since_s > timeout_s else ""

    def values(self) -> dict[str, str]:
        """Counters and medians by name."""
        with self._lock:
            return {
                "frames": str(self.frames),
                "skipped": str(self.skipped),
                "lost": str(self.lost),
                "bad": str(self.bad),
                "faults": str(self.faults),
                "persons": str(self.persons),
                "tracks_lost": str(self.tracks_lost),
                "tracks_regained": str(self.tracks_regained),
                "latency_ms_p50": _percentile(self._latency, 50),
                "latency_ms_p95": _percentile(self._latency, 95),
                "model_ms_p50": _percentile(self._model, 50),
                "model_ms_p95": _percentile(self._model, 95),
                "ros_ms_p50": _percentile(self._ros, 50),
                "last_error": self.last_error,
            }


def _percentile(values: deque[float], percent: float) -> str:
    return f"{np.percentile(list(values), percent):.1f}" if values else "n/a"


def resident_mb(process: int) -> float:
    """Memory of a process that is in use (resident set), megabytes."""
    with open(f"/proc/{process}/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
