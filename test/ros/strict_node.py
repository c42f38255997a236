"""The node with an rclpy that raises where an answer cannot be sent, as Humble's does, and where a
transition is asked for that is not possible, as Humble's and Jazzy's do.

python test/ros/strict_node.py --ros-args ...
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

from rclpy.lifecycle.node import LifecycleNodeMixin
from rclpy.service import Service

from kdc_ros.main import main

send = Service.send_response


def send_or_raise(service: Any, response: Any, header: Any) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        send(service, response, header)
    for warning in caught:
        raise RuntimeError(str(warning.message).replace(" (timeout)", ""))


change_state = LifecycleNodeMixin._LifecycleNodeMixin__change_state  # type: ignore[attr-defined]


def change_state_or_raise(node: Any, transition: int) -> Any:
    if transition not in [number for number, *_ in node._state_machine.available_transitions]:
        raise RuntimeError("Failed to trigger lifecycle state machine transition")
    return change_state(node, transition)


if __name__ == "__main__":
    LifecycleNodeMixin._LifecycleNodeMixin__change_state = (  # type: ignore[attr-defined]
        change_state_or_raise
    )
    Service.send_response = send_or_raise  # type: ignore[method-assign, assignment]
    sys.exit(main())
