"""Peer: another model as its authors run it, whole, in our ONNX Runtime."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import nn

from kdc_core.codec.grid import Letterbox, SideRule
from kdc_core.codec.results import Prediction
from kdc_core.inference.export import to_onnx
from kdc_core.inference.predictor import letterbox_image
from kdc_core.inference.runtimes.onnxruntime import Session

# Maps of the network, how the image was put into the frame, (height, width) of the image.
Decode = Callable[[list[np.ndarray], Letterbox, tuple[int, int]], Prediction]


@dataclass(frozen=True)
class Peer:
    """Letterbox, network and its own decode; no threshold.

    Attributes:
        network: from a frame (h, w, 3) uint8 RGB to its maps.
        longer_side: of the frame, pixels.
        sides: that the frame may have.
        decode: from the maps to people.
    """

    network: Callable[[np.ndarray], list[np.ndarray]]
    longer_side: int
    sides: SideRule
    decode: Decode

    @classmethod
    def of(
        cls,
        network: nn.Module,
        longer_side: int,
        sides: SideRule,
        decode: Decode,
        threads: int,
    ) -> Peer:
        """Export a network of one frame to ONNX, with free sides as our programs have, and open
        it with the options that they get."""
        session = Session(to_onnx(network, sides).SerializeToString(), threads)
        return cls(lambda frame: session.run(None, {"frame": frame}), longer_side, sides, decode)

    def __call__(self, image: np.ndarray) -> Prediction:
        """Find the people of an image (H, W, 3) uint8 RGB; its times are named as Predictor's."""
        begun = time.perf_counter()
        size = (image.shape[0], image.shape[1])
        letterbox = Letterbox.fit(size, self.longer_side, self.sides)
        frame = letterbox_image(image, letterbox)
        scaled = time.perf_counter()
        maps = self.network(frame)
        ran = time.perf_counter()
        prediction = self.decode(maps, letterbox, size)
        done = time.perf_counter()
        prediction.timings_ms.update(
            letterbox=1e3 * (scaled - begun),
            model=1e3 * (ran - scaled),
            assembly=1e3 * (done - ran),
        )
        return prediction
