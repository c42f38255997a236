"""The node with a model that fails as the frame tells it, by the value of its first pixel.

    python test/ros/faulty_node.py --ros-args ...

All else is the node's own, and frames of other values go to the real model.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import numpy as np

from kdc_core.inference.assembly import Raw
from kdc_core.inference.runtimes.protocol import Pending, Runtime
from kdc_ros import model
from kdc_ros.main import main
from kdc_ros.stand_in import opener

RAISES, GIVES_NAN, TAKES_LONG, SUBMIT_RAISES, NO_MEMORY = 50, 100, 150, 200, 250
LONG_S = 2.5


class Faulty:
    """A runtime that does one of these, or what the real one does."""

    def __init__(self, runtime: Runtime):
        self._runtime = runtime
        self.name, self.manifest, self.describe = runtime.name, runtime.manifest, runtime.describe
        self.close = runtime.close

    def submit(self, frame: np.ndarray) -> Pending[Raw]:
        value = int(frame[0, 0, 0])
        pending = self._runtime.submit(frame)
        if value == SUBMIT_RAISES:
            raise RuntimeError("the frame was not taken")

        def collect() -> Raw:
            raw = pending.collect()
            if value == RAISES:
                raise RuntimeError("out of luck")
            if value == NO_MEMORY:
                raise MemoryError("8 GiB")
            if value == TAKES_LONG:
                time.sleep(LONG_S)
            if value == GIVES_NAN:
                nothing = {name: array * np.nan for name, array in vars(raw).items()}
                raw = Raw(**{**nothing, "owner": raw.owner})
                raw = replace(raw, score=np.ones_like(raw.score))
            return raw

        return Pending(collect)


if __name__ == "__main__":
    model.open_predictor = opener(Faulty)
    sys.exit(main())
