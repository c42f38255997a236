"""Predictor: an image in, the people in it out."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from kdc_core.codec.codec import Codec
from kdc_core.codec.grid import Letterbox
from kdc_core.codec.results import Prediction
from kdc_core.codec.skeleton import SKELETONS
from kdc_core.config import Config
from kdc_core.errors import KdcError
from kdc_core.inference.assembly import Raw, Thresholds, assemble
from kdc_core.inference.manifest import Precision
from kdc_core.inference.rotate import Degrees, rotate_back, rotate_image
from kdc_core.inference.runtimes.choice import choose_runtime
from kdc_core.inference.runtimes.protocol import Pending, Runtime, UnusableRuntime, submit_frame
from kdc_core.network.backbones import side_rule

if TYPE_CHECKING:
    from kdc_core.inference.engine.cache import Cache

LARGEST_SIDE = 16384
ImageFormat = Literal["rgb", "bgr"]
# What gives the people of a letterboxed frame (h, w, 3) uint8: at once, or when collected.
RawOf = Callable[[np.ndarray, Letterbox], Raw]
Submit = Callable[[np.ndarray, Letterbox], Pending[Raw]]


class ImageArrayError(KdcError):
    """What was handed in as an image is none; the text says what came."""


class Predictor:
    """Finds people in images with one model on one runtime.

    Several threads may call it, one waits for the other. It works in the process that opened it:
    a process that is forked off opens its own. `with` closes it.

    Args:
        runtime: what executes the model.
        longer_side: of the network's input, pixels; None = the model's.
        image_format: order of the colors of the images it will be given.
        size: (H, W) of the network's input, whatever the image; None = the program's, or as
            large as the image needs.

    Attributes:
        thresholds: applied to every image; may be replaced at any time.
        rotate: degrees, one of `rotate.ROTATIONS`, by which every image is turned clockwise
            before the network sees it; may be changed at any time. People are in pixels of the
            image as it was handed in.
        refused: why runtimes that `auto` prefers cannot be used here, by name.
        skeleton: names and order of the keypoints.

    Example:
        >>> predictor = Predictor.from_pretrained("kdc_light", image_format="bgr")
        >>> prediction = predictor(cv2.imread("street.jpg"))
        >>> prediction.persons[0].keypoints.shape
        (17, 3)
    """

    def __init__(
        self,
        runtime: Runtime,
        longer_side: int | None = None,
        image_format: ImageFormat = "rgb",
        size: tuple[int, int] | None = None,
    ):
        if image_format not in ("rgb", "bgr"):
            raise ValueError(f"image_format: expected 'rgb' or 'bgr', got {image_format!r}")
        if longer_side is not None and not 0 < longer_side <= LARGEST_SIDE:
            raise ValueError(f"longer_side: expected 1 to {LARGEST_SIDE}, got {longer_side!r}")
        self.runtime = runtime
        self.config = runtime.manifest.config
        self.skeleton = SKELETONS[self.config.fields.skeleton]
        self.longer_side = longer_side or self.config.predict.longer_side
        self._image_format = image_format
        self._one_call = threading.Lock()
        self._process, self._closed = os.getpid(), False
        self.size = size or runtime.manifest.size
        self.refused: dict[str, str] = {}
        self.thresholds = default_thresholds(self.config)
        self.rotate: Degrees = 0

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
        image_format: ImageFormat = "rgb",
        precision: Precision | Literal["auto"] = "auto",
        size: tuple[int, int] | None = None,
        engines: Cache | None = None,
        one_size: bool = False,
    ) -> Predictor:
        """Open a model by name or file.

        Args:
            model: `kdc_light`, or an .onnx or .safetensors file of ours.
            runtime: `auto`, or one of `choice.RUNTIMES`.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            threads: CPU threads; None = the cores this process may use, at most 4.
            confidence, keypoint, mask: thresholds; None = the model's.
            image_format: `rgb`, or `bgr` as OpenCV reads images.
            precision: of the network: `auto`, `fp32`, `fp16`, `int8-trt` or `int8-cpu`.
            size: (H, W) of the network's input, whatever the image; None = as it needs.
            engines: where TensorRT's engines are kept; None = in the user's cache folder.
            one_size: whether all images will be of one size, as a camera's are: `auto` may take
                another runtime and precision for them.

        Raises:
            UnusableRuntime, ManifestError, ModelFileError: says what is wrong with which file.
            FrameError: no frames of that size fit the model.
            BuildCancelled: by `cancelled` of the engines' cache.
            ValueError: no such image format, thresholds or number of threads.
        """
        if threads is not None and not (isinstance(threads, (int, np.integer)) and threads > 0):
            raise ValueError(f"threads: expected a whole number from 1, or None, got {threads!r}")
        choice = choose_runtime(
            model, runtime, device, threads, precision, size, engines, one_size
        )
        try:
            predictor = cls(choice.runtime, image_format=image_format, size=size)
            default = predictor.thresholds
            predictor.thresholds = replace(
                default,
                confidence=default.confidence if confidence is None else confidence,
                keypoint=default.keypoint if keypoint is None else keypoint,
                mask=default.mask if mask is None else mask,
            )
        except BaseException:
            choice.runtime.close()
            raise
        predictor.refused = choice.refused
        return predictor

    @property
    def about(self) -> str:
        """Runtime, precision and device in words: people differ a little between precisions."""
        about = self.runtime.describe()
        return f"{about['runtime']} in {about['precision']} on {about['device']}"

    def __call__(self, image: np.ndarray, thresholds: Thresholds | None = None) -> Prediction:
        """Find the people of one image.

        Args:
            image: (H, W, 3) uint8 in `image_format`, any strides.
            thresholds: for this image; None = the attribute's.

        Returns:
            People in pixels of the image, best first; none gives an empty Prediction.

        Raises:
            ImageArrayError: not such an array.
            UnusableRuntime: the predictor is closed, or was opened by another process.
        """
        self._check_open()  # before the lock, which a thread may hold that a fork left behind
        with self._one_call:
            return self.submit(image, thresholds).collect()

    def submit(
        self, image: np.ndarray, thresholds: Thresholds | None = None
    ) -> Pending[Prediction]:
        """As calling it, without waiting: `collect()` of what is returned gives the people.

        So the next image can be submitted while this one runs: two at once, from one thread, and
        collected in their order, by this thread or another. The image may be changed at once.
        The thresholds are those of now; the timing `model` is from submitting to collecting.

        Raises:
            ImageArrayError: not such an array.
            UnusableRuntime: the predictor is closed, or was opened by another process.
            ValueError: `rotate` is none of `ROTATIONS`.
        """
        self._check_open()
        check_image(image)
        degrees = self.rotate
        image = rotate_image(image, degrees)
        pending = submit_image(
            image,
            self._submit,
            self.config,
            thresholds or self.thresholds,
            self.longer_side,
            self.size,
        )
        return Pending(lambda: rotate_back(pending.collect(), degrees))

    def _check_open(self) -> None:
        if self._closed:
            raise UnusableRuntime("this predictor is closed: open another one")
        if self._process != os.getpid():
            raise UnusableRuntime(
                "this predictor was opened by the process that this one was forked off: its "
                "threads did not come along. Open one here, or start processes by spawn"
            )

    def _submit(self, frame: np.ndarray, letterbox: Letterbox) -> Pending[Raw]:
        if self._image_format == "bgr":
            frame = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        return submit_frame(self.runtime, frame)

    def letterbox(self, size: tuple[int, int]) -> Letterbox:
        """How an image of (height, width) is put into the network input, turned by `rotate`."""
        size = size[::-1] if self.rotate % 180 else size
        return fit_letterbox(size, self.config, self.longer_side, self.size)

    def close(self) -> None:
        """Free the model."""
        self._closed = True
        self.runtime.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def default_thresholds(config: Config) -> Thresholds:
    """The thresholds a model comes with."""
    predict = config.predict
    return Thresholds(
        predict.confidence,
        predict.keypoint_threshold,
        predict.mask_threshold,
        config.decode.people,
    )


def evaluation_thresholds(config: Config) -> Thresholds:
    """The thresholds of evaluation: whoever is found, with all keypoints, whatever the scores."""
    return replace(default_thresholds(config), confidence=0.0, keypoint=0.0)


def find_people(
    image: np.ndarray,
    raw_of: RawOf,
    config: Config,
    thresholds: Thresholds,
    longer_side: int | None = None,
) -> Prediction:
    """Letterbox an image, find the people of the frame by `raw_of`, and bring them back to it.

    Args and Raises as for `submit_image`.
    """

    def submit(frame: np.ndarray, letterbox: Letterbox) -> Pending[Raw]:
        return Pending(partial(raw_of, frame, letterbox))

    return submit_image(image, submit, config, thresholds, longer_side).collect()


def submit_image(
    image: np.ndarray,
    submit: Submit,
    config: Config,
    thresholds: Thresholds,
    longer_side: int | None = None,
    frame_size: tuple[int, int] | None = None,
) -> Pending[Prediction]:
    """Letterbox an image and submit it; collecting brings its people back to the image.

    The one way from image to Prediction, whatever finds the people.

    Args:
        image: (H, W, 3) uint8, any strides.
        submit: starts on the letterboxed frame.
        config: of the model: grid and sides of its maps.
        thresholds: what counts.
        longer_side, frame_size: as for `fit_letterbox`.

    Raises:
        ImageArrayError: not such an array.
    """
    check_image(image)
    begun = time.perf_counter()
    size = (image.shape[0], image.shape[1])
    letterbox = fit_letterbox(size, config, longer_side, frame_size)
    frame = letterbox_image(image, letterbox)
    scaled = time.perf_counter()
    pending = submit(frame, letterbox)

    def collect() -> Prediction:
        raw = pending.collect()
        ran = time.perf_counter()
        prediction = assemble(raw, letterbox, size, Codec.of(config).mask_grid, thresholds)
        done = time.perf_counter()
        prediction.timings_ms.update(
            letterbox=1e3 * (scaled - begun),
            model=1e3 * (ran - scaled),
            assembly=1e3 * (done - ran),
        )
        return prediction

    return Pending(collect)


def fit_letterbox(
    size: tuple[int, int],
    config: Config,
    longer_side: int | None = None,
    frame_size: tuple[int, int] | None = None,
) -> Letterbox:
    """How an image is put into the frame.

    Args:
        size: (height, width) of the image.
        config: of the model.
        longer_side: of the frame, pixels; None = the model's.
        frame_size: (height, width) of the frame, whatever the longer side; None = as the image
            needs.
    """
    if frame_size is not None:
        return Letterbox.into(size, frame_size)
    return Letterbox.fit(size, longer_side or config.predict.longer_side, side_rule(config))


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


def check_image(image: np.ndarray) -> None:
    """Raise ImageArrayError where it is no (H, W, 3) uint8 array with sides that are taken."""
    if not isinstance(image, np.ndarray):
        raise ImageArrayError(f"expected an (H, W, 3) uint8 array, got {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ImageArrayError(
            f"expected an (H, W, 3) uint8 array, got {image.dtype} array of shape {image.shape}"
        )
    height, width = image.shape[:2]
    if not (0 < min(height, width) and max(height, width) <= LARGEST_SIDE):
        raise ImageArrayError(
            f"image of {width}x{height} pixels: expected sides of 1 to {LARGEST_SIDE}"
        )
