"""The node with a model that takes its time to load, and is of no use then, or for each frame.

python test/ros/slow_node.py load|frame SECONDS --ros-args ...
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from kdc_core.errors import KdcError
from kdc_core.inference.assembly import Raw
from kdc_core.inference.runtimes.protocol import Pending, Runtime
from kdc_ros import model
from kdc_ros.main import main
from kdc_ros.stand_in import opener

WHAT, SECONDS = sys.argv.pop(1), float(sys.argv.pop(1))


def slowly() -> None:
    print("it begins", flush=True)
    time.sleep(SECONDS)
    raise KdcError("it was slow")


def load(*_: Any) -> Any:
    slowly()


class SlowRuntime:
    """One that finds nobody in a frame, in time."""

    def __init__(self, runtime: Runtime):
        self.name, self.manifest, self.describe = runtime.name, runtime.manifest, runtime.describe
        self.close = runtime.close

    def submit(self, frame: np.ndarray) -> Pending[Raw]:
        return Pending(slowly)  # type: ignore[arg-type]


if __name__ == "__main__":
    opened: Callable[..., Any] = load if WHAT == "load" else opener(SlowRuntime)
    model.open_predictor = opened
    sys.exit(main())
