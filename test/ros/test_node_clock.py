"""The node with `use_sim_time`: a clock that never comes, runs, stands, and jumps."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.time import Time
from rosgraph_msgs.msg import Clock

from .peer import OUTPUTS, TIMEOUT_S, MakePeer, Peer
from .process import Start

pytestmark = [pytest.mark.ros, pytest.mark.all]


class Simulator:
    """Publishes `/clock`, a tenth of a second further each time."""

    def __init__(self, peer: Peer, time_s: float):
        self._peer, self.time_s = peer, time_s
        self._publisher = peer.node.create_publisher(Clock, "/clock", 1)

    def run_until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < end, f"not within {TIMEOUT_S} s: {self._peer.statuses[-1:]}"
            self.time_s += 0.1
            self._publisher.publish(Clock(clock=Time(seconds=self.time_s).to_msg()))
            self._peer.spin_until(condition, 0.05)


def test_the_node_works_whatever_the_clock_does(start: Start, peer: MakePeer) -> None:
    process = start("-r", "__ns:=/sim", "-p", "use_sim_time:=true", "-p", "input_timeout:=0.0")
    camera = peer("/sim")

    def told(text: str, level: bytes = DiagnosticStatus.WARN) -> bool:
        """Whether the latest status says so."""
        last = camera.statuses[-1:]
        return bool(last) and last[0].level == level and last[0].message.startswith(text)

    camera.meet()  # it configures, activates, and answers
    camera.wait(lambda: told("use_sim_time is true and nothing comes on /clock"), "no clock")
    assert set(camera.answer()) == set(OUTPUTS)
    assert camera.values(camera.statuses[-1])["latency_ms_p50"] == "n/a"

    simulator = Simulator(camera, 1000.0)
    simulator.run_until(lambda: told("running", DiagnosticStatus.OK))
    camera.wait(lambda: told("/clock has stood for "), "a clock that stands")
    assert set(camera.answer()) == set(OUTPUTS)

    for sign, jump_s in (("-", -500.0), ("+", 500.0)):
        simulator.run_until(lambda: told("running", DiagnosticStatus.OK))
        simulator.time_s += jump_s
        simulator.run_until(partial(told, f"/clock jumped by {sign}"))
        assert set(camera.answer()) == set(OUTPUTS)
    camera.wait(lambda: "/clock jumped by +" in process.log, "all of it in the log")
    for text in ("nothing comes on /clock", "/clock has stood", "/clock jumped by -"):
        assert text in process.log
