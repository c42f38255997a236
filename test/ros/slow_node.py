"""The node with a model that takes its time to load, and is of no use then.

python test/ros/slow_node.py SECONDS --ros-args ...
"""

from __future__ import annotations

import sys
import time
from typing import Any

from kdc_core.errors import KdcError
from kdc_ros import model
from kdc_ros.main import main

SECONDS = float(sys.argv.pop(1))


def slowly(*_: Any) -> None:
    print("it begins", flush=True)
    time.sleep(SECONDS)
    raise KdcError("it was slow")


if __name__ == "__main__":
    model.open_predictor = slowly  # type: ignore[assignment]
    sys.exit(main())
