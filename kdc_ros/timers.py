"""Work put off until the executor is free."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node


def call_soon(node: Node, work: Callable[[], object]) -> None:
    """Call once from the node's executor, after the callback that runs now."""

    def once() -> None:
        timer.cancel()
        node.destroy_timer(timer)
        work()

    timer = node.create_timer(0.001, once)
