"""Predictor: an image in, the people in it out."""

from __future__ import annotations

import time
from dataclasses import replace

import cv2
import numpy as np

from kdc_core.assembly import Thresholds, assemble
from kdc_core.grid import Grid, Letterbox
from kdc_core.manifest import side_rule
from kdc_core.results import Prediction
from kdc_core.runtimes.base import Runtime, open_runtime
from kdc_core.skeleton import SKELETONS

LARGEST_SIDE = 16384


class Predictor:
    """Finds people in images with one model on one runtime.

    Example:
        >>> predictor = Predictor.from_pretrained("kdc_light")
        >>> prediction = predictor(cv2.imread("street.jpg")[..., ::-1])
        >>> prediction.persons[0].keypoints.shape
        (17, 3)

    Attributes:
        thresholds: applied to every image; may be replaced at any time.
        skeleton: names and order of the keypoints.
    """

    def __init__(self, runtime: Runtime, longer_side: int | None = None):
        config = runtime.manifest.config
        self.runtime = runtime
        self.skeleton = SKELETONS[config.fields.skeleton]
        self.longer_side = longer_side or config.predict.longer_side
        self.thresholds = Thresholds(
            config.predict.confidence,
            config.predict.keypoint_threshold,
            config.predict.mask_threshold,
            config.decode.people,
        )
        self._grid = Grid(config.fields.stride, config.fields.grid_offset)
        self._upsample = config.decode.upsample
        self._sides = side_rule(config)

    @classmethod
    def from_pretrained(
        cls,
        model: str = "kdc_light",
        runtime: str = "auto",
        device: str = "auto",
        threads: int | None = None,
        confidence: float | None = None,
        keypoint: float | None = None,
        mask: float | None = None,
    ) -> Predictor:
        """Open a model by name or file.

        Args:
            model: `kdc_light`, or an .onnx or .safetensors file of ours.
            runtime: `auto`, `onnxruntime` or `torch`.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            threads: CPU threads; None = the cores this process may use, at most 4.
            confidence, keypoint, mask: thresholds; None = the model's.

        Raises:
            UnusableRuntime, ManifestError, ModelFileError: says what is wrong with which file.
        """
        predictor = cls(open_runtime(model, runtime, device, threads))
        default = predictor.thresholds
        predictor.thresholds = replace(
            default,
            confidence=default.confidence if confidence is None else confidence,
            keypoint=default.keypoint if keypoint is None else keypoint,
            mask=default.mask if mask is None else mask,
        )
        return predictor

    def __call__(self, image: np.ndarray) -> Prediction:
        """Find the people of one image.

        Args:
            image: (H, W, 3) uint8 RGB, any strides.

        Returns:
            People in pixels of the image, best first; none gives an empty Prediction.

        Raises:
            ValueError: not such an array.
        """
        _check_image(image)
        begun = time.perf_counter()
        size = (image.shape[0], image.shape[1])
        letterbox = self.letterbox(size)
        frame = letterbox_image(image, letterbox)
        scaled = time.perf_counter()
        raw = self.runtime.run(frame)
        ran = time.perf_counter()
        prediction = assemble(raw, letterbox, size, self._grid, self._upsample, self.thresholds)
        done = time.perf_counter()
        prediction.timings_ms.update(
            letterbox=1e3 * (scaled - begun),
            model=1e3 * (ran - scaled),
            assembly=1e3 * (done - ran),
        )
        return prediction

    def letterbox(self, size: tuple[int, int]) -> Letterbox:
        """How an image of (height, width) is put into the network input."""
        return Letterbox.fit(size, self.longer_side, *self._sides)

    def close(self) -> None:
        """Free the model."""
        self.runtime.close()


def letterbox_image(image: np.ndarray, letterbox: Letterbox) -> np.ndarray:
    """Scale an image into the network input; the rest is black.

    Args:
        image: (H, W, 3) uint8.
        letterbox: of this image's size.

    Returns:
        (h, w, 3) uint8, contiguous.
    """
    height, width = letterbox.content
    small = letterbox.scale_x < 0.5
    frame = np.zeros((*letterbox.size, 3), np.uint8)
    frame[:height, :width] = cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA if small else cv2.INTER_LINEAR
    )
    return frame


def _check_image(image: np.ndarray) -> None:
    good = (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.ndim == 3
        and image.shape[2] == 3
        and 0 < min(image.shape)
        and max(image.shape) <= LARGEST_SIDE
    )
    if not good:
        got = (
            f"{image.dtype} array of shape {image.shape}"
            if isinstance(image, np.ndarray)
            else type(image).__name__
        )
        raise ValueError(
            f"expected an (H, W, 3) uint8 RGB array with sides of 1 to {LARGEST_SIDE}, got {got}"
        )
