"""A camera of a fixed rate before a node: what is answered, how late, and what the node takes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.time import Time

from kdc_ros.camera import Camera, NoAnswer, Stamp, stamp_of

# Counters of the diagnostics. A frame that the node received ends as one of these.
ENDS = ("frames", "dropped", "bad", "faults", "skipped")
COUNTERS = (*ENDS, "lost")
TIMEOUT_S = 30.0
LAST_S = 5.0  # for the answer to the last frame


@dataclass(frozen=True)
class Streamed:
    """What became of the frames of a stream.

    Attributes:
        seconds: from the first frame to the answer to the last.
        shown: published frames.
        counts: what the node counted meanwhile, by name of COUNTERS.
        latencies_ms: from publishing to the last answer, of the frames that are answered.
        cpu_s: processor time of the node's process.
    """

    seconds: float
    shown: int
    counts: dict[str, int]
    latencies_ms: np.ndarray
    cpu_s: float

    @property
    def delivered_share(self) -> float:
        """Frames that the node received, over those published."""
        return sum(self.counts[name] for name in ENDS) / self.shown

    @property
    def cpu_share(self) -> float:
        """Processor seconds of the node per second and core of this machine."""
        return self.cpu_s / self.seconds / len(os.sched_getaffinity(0))

    def latency_ms(self, percent: float) -> float:
        """A percentile of the latencies.

        Raises:
            NoAnswer: no frame was answered.
        """
        if not len(self.latencies_ms):
            raise NoAnswer(f"none of {self.shown} frames was answered")
        return float(np.percentile(self.latencies_ms, percent))


class Streamer:
    """Shows one frame to a node, again and again.

    Args:
        camera: the node answers its frames already.
        pid: of the node's process.
    """

    def __init__(self, camera: Camera, pid: int):
        self._camera, self._pid = camera, pid
        self._counts: dict[str, int] = {}
        self._counted_ns = 0
        camera.node.create_subscription(DiagnosticArray, "/diagnostics", self._keep_counts, 10)

    def _keep_counts(self, array: DiagnosticArray) -> None:
        for status in array.status:
            values = {pair.key: pair.value for pair in status.values}
            # All nodes share the topic; they are told apart by their input.
            if values.get("input_topic") == self._camera.publisher.topic_name:
                self._counts = {name: int(values[name]) for name in COUNTERS}
                self._counted_ns = Time.from_msg(array.header.stamp).nanoseconds

    def counts(self) -> dict[str, int]:
        """The node's counters by name, as of now.

        Raises:
            NoAnswer: its diagnostics do not come.
        """
        now_ns = self._camera.node.get_clock().now().nanoseconds
        if not self._camera.spin_until(lambda: self._counted_ns >= now_ns, TIMEOUT_S):
            raise NoAnswer(f"no diagnostics of the node within {TIMEOUT_S} s")
        return self._counts

    def run(
        self,
        pixels: np.ndarray,
        rate_hz: float,
        seconds: float,
        each_s: Callable[[], object] = lambda: None,
    ) -> Streamed:
        """Publish frames, and wait for the answer to the last unless it was lost.

        A frame that would come later than the next one is due is left out, not made up for.

        Args:
            pixels: (H, W, 3) uint8 RGB.
            rate_hz: of the camera.
            seconds: how long.
            each_s: called about once a second.

        Raises:
            NoAnswer: no diagnostics come.
        """
        camera, waiting, latencies_ms = self._camera, dict[Stamp, float](), list[float]()
        before, cpu_s = self.counts(), cpu_seconds(self._pid)

        def look() -> bool:
            now, whole = time.perf_counter(), len(camera.answers)
            answered = [s for s in waiting if len(camera.received.get(s, ())) == whole]
            latencies_ms.extend(1e3 * (now - waiting[stamp]) for stamp in answered)
            for stamp in [s for s in waiting if answered and s <= answered[-1]]:
                del waiting[stamp]  # the older ones are never to be answered
                camera.received.pop(stamp, None)
            return not waiting

        begun = due = told = time.perf_counter()
        shown = 0
        while due - begun < seconds:
            camera.spin_until(lambda: look() and False, due - time.perf_counter())
            frame = camera.image(pixels)
            waiting[stamp_of(frame)] = time.perf_counter()
            camera.publisher.publish(frame)
            shown += 1
            now = time.perf_counter()
            due += (1 + max(0.0, now - due) * rate_hz // 1) / rate_hz
            if now - told >= 1.0:
                told = now
                each_s()
        camera.spin_until(look, LAST_S)
        camera.received.clear()
        passed, used_s = time.perf_counter() - begun, cpu_seconds(self._pid) - cpu_s
        counts = self._counts_since(before)
        if sum(counts[name] for name in ENDS) < shown:  # a frame is counted after it is answered
            counts = self._counts_since(before)
        return Streamed(passed, shown, counts, np.array(latencies_ms), used_s)

    def _counts_since(self, before: dict[str, int]) -> dict[str, int]:
        return {name: count - before[name] for name, count in self.counts().items()}


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has taken so far, in user and in kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
