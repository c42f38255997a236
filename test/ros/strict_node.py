"""The node with an rclpy that raises where an answer cannot be sent, as Humble's does.

python test/ros/strict_node.py --ros-args ...
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

from rclpy.service import Service

from kdc_ros.main import main

send = Service.send_response


def send_or_raise(service: Any, response: Any, header: Any) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        send(service, response, header)
    for warning in caught:
        raise RuntimeError(str(warning.message).replace(" (timeout)", ""))


if __name__ == "__main__":
    Service.send_response = send_or_raise  # type: ignore[method-assign, assignment]
    sys.exit(main())
