"""The node with a model that takes a given time, for the benchmark and for tests.

    python -m kdc_ros.stand_in MILLISECONDS --ros-args ...

Only what executes the model is replaced. Subscription, conversion, letterbox, assembly and all
messages are the node's own, and so are the people: those that the model finds in a frame of the
same size. The wait takes no processor, as that for a GPU does not.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import cache

import cv2
import numpy as np

from kdc_core.bench.frames import one_person_image
from kdc_core.inference.assembly import Raw
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.runtimes.protocol import Pending, Runtime
from kdc_ros import model
from kdc_ros.main import main
from kdc_ros.parameters import Settings

SIZES = {"vga": (480, 640), "720p": (720, 1280)}  # (height, width)


class StandIn:
    """A runtime that gives what another one gave for the first frame of each size.

    Args:
        runtime: the other one.
        delay_s: from submitting a frame to its people.
    """

    def __init__(self, runtime: Runtime, delay_s: float):
        self._runtime, self._delay_s = runtime, delay_s
        self._given: dict[tuple[int, ...], Raw] = {}
        self.name, self.manifest = runtime.name, runtime.manifest

    def describe(self) -> dict[str, str]:
        stands_in = f"stand-in of {1e3 * self._delay_s:.0f} ms"
        return {**self._runtime.describe(), "runtime": stands_in}

    def submit(self, frame: np.ndarray) -> Pending[Raw]:
        if frame.shape not in self._given:
            self._given[frame.shape] = self._runtime.submit(frame).collect()
        raw, due_s = self._given[frame.shape], time.monotonic() + self._delay_s

        def collect() -> Raw:
            time.sleep(max(0.0, due_s - time.monotonic()))
            return raw

        return Pending(collect)

    def close(self) -> None:
        self._runtime.close()


@cache
def sample(size: str) -> np.ndarray:
    """The frame with one person that the stand-in knows: (H, W, 3) uint8 RGB.

    Args:
        size: one of SIZES.
    """
    return cv2.resize(one_person_image(), SIZES[size][::-1])


def after_samples(delay_s: float) -> Callable[[Runtime], StandIn]:
    """Makes a stand-in that knows the samples."""

    def made(runtime: Runtime) -> StandIn:
        stand_in = StandIn(runtime, delay_s)
        predictor = Predictor(stand_in)
        for size in SIZES:
            predictor(sample(size))
        return stand_in

    return made


def opener(stand_in: Callable[[Runtime], Runtime]) -> Callable[..., Predictor]:
    """As `open_predictor`, with something in the place of the runtime."""
    real = model.open_predictor

    def opened(
        settings: Settings,
        progress: Callable[[str, int, int], None],
        cancelled: Callable[[], bool],
    ) -> Predictor:
        predictor = real(settings, progress, cancelled)
        predictor.runtime = stand_in(predictor.runtime)
        return predictor

    return opened


if __name__ == "__main__":
    model.open_predictor = opener(after_samples(float(sys.argv.pop(1)) / 1e3))
    sys.exit(main())
