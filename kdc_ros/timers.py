"""Timers of the node. All run on the steady clock: `/clock` may stand, jump, or never come."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

STEADY = Clock(clock_type=ClockType.STEADY_TIME)


def call_soon(node: Node, work: Callable[[], object]) -> None:
    """Call once from the node's executor, after the callback that runs now."""

    def once() -> None:
        timer.cancel()
        node.destroy_timer(timer)
        work()

    timer = node.create_timer(0.001, once, clock=STEADY)
