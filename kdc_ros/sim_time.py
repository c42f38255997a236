"""What is wrong with `/clock`, where `use_sim_time` asks for it."""

from __future__ import annotations

import time

from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.node import Node

STANDS_S = 2.0  # without a new time
TOLD_S = 5.0  # for which a jump is told
JUMP = JumpThreshold(
    min_forward=Duration(seconds=10), min_backward=Duration(seconds=-1), on_clock_change=False
)


class SimTime:
    """Watches the node's clock, which gives stamps and latencies; the timers run on another.

    Attributes:
        complaint: what was missing at the last look, "" = nothing.
    """

    def __init__(self, node: Node):
        self._node, self._clock = node, node.get_clock()
        self.complaint = ""
        self._time_ns = 0
        self._moved_s: float | None = None  # when this time was first seen
        self._jump, self._jumped_s = "", 0.0
        # The callback lasts as long as its handle.
        self._handle = self._clock.create_jump_callback(JUMP, post_callback=self._on_jump)

    def _on_jump(self, jump: TimeJump) -> None:
        if self._time_ns:  # the first time of all is no jump
            self._jump = f"/clock jumped by {jump.delta.nanoseconds / 1e9:+.1f} s"
            self._jumped_s = time.monotonic()

    def look(self) -> None:
        """See how the time goes; to be called about every second."""
        self.complaint = self._complaint()

    def _complaint(self) -> str:
        if not self._node.get_parameter("use_sim_time").value:
            self._moved_s = None
            return ""
        now_s, time_ns = time.monotonic(), self._clock.now().nanoseconds
        if self._moved_s is None or time_ns != self._time_ns:
            self._time_ns, self._moved_s = time_ns, now_s
        stood_s = now_s - self._moved_s
        if stood_s <= STANDS_S:
            return self._jump if now_s - self._jumped_s < TOLD_S else ""
        if time_ns:
            return (
                f"/clock has stood for {stood_s:.0f} s: a paused simulator, or a bag at its end? "
                "Images are processed, latencies are wrong"
            )
        return (
            "use_sim_time is true and nothing comes on /clock: start the simulator, play the bag "
            "with --clock, or set use_sim_time to false. Images are processed, latencies unknown"
        )
