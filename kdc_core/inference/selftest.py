"""Self-test: a runtime on the target finds the people it should in images that are known.

What is compared with are people that ONNX Runtime found on a CPU in fp32. For shipped weights they
come with the package (`tools/expect.py` made them); for other weights ONNX Runtime finds them when
they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np

from kdc_core.codec.codec import Codec
from kdc_core.codec.grid import Letterbox
from kdc_core.codec.results import Person, Prediction
from kdc_core.codec.skeleton import SKELETONS
from kdc_core.config import Config
from kdc_core.data.images import Images
from kdc_core.inference.assembly import Raw, Thresholds, assemble
from kdc_core.inference.compare import WEAK, Difference, compare
from kdc_core.inference.manifest import Manifest, Precision
from kdc_core.inference.runtimes.onnxruntime import OnnxRuntime
from kdc_core.inference.runtimes.protocol import Runtime, UnusableRuntime, submit_frame
from kdc_core.network.backbones import side_rule

CORE = Path(str(files("kdc_core")))
# Two people each, all of them sure, and as sure whatever frame they are put into.
IMAGES = ("000000283520.jpg", "000000409475.jpg")
# Longer side to which they are reduced, so that frames of most sizes have room for them.
SIDE = 224
# Frame in which the shipped people were found: that of a VGA camera. In any other of LEAST or more
# they are in the same place to a tenth of a pixel; in smaller ones the border is too near.
FRAME, LEAST = (448, 576), (352, 448)
KEYPOINT, MASK = 0.3, 0.5  # thresholds


@dataclass(frozen=True)
class Bound:
    """How far a runtime may be from what is expected: pixels, and overlap of masks."""

    keypoint_px: float
    mask_iou: float


BOUNDS: dict[Precision, Bound] = {
    "fp32": Bound(0.5, 0.99),
    "fp16": Bound(2.0, 0.97),
    "int8-trt": Bound(4.0, 0.93),
    "int8-cpu": Bound(4.0, 0.93),
}


class SelfTestFailed(UnusableRuntime):
    """A runtime that does not find the people it should; the text says by how much."""


def self_test(
    runtime: Runtime, size: tuple[int, int] | None = None, program: Path | None = None
) -> Difference:
    """Run known images and compare the people with those expected.

    Args:
        runtime: to be tested.
        size: (H, W) of the frames that it will see; None = any.
        program: its .onnx file. Of weights that are not shipped, only this lets their people be
            found another way; without it only wrong numbers are seen.

    Returns:
        How far the people are from those expected.

    Raises:
        SelfTestFailed: further than BOUNDS, or an output is not what it should be.
    """
    manifest = runtime.manifest
    size = manifest.size or size or _fit(manifest, FRAME)
    expected = read_expected(manifest.weights_sha256, size)
    if expected is None:
        expected = _find_expected(runtime, size, program)
    found = find_people_of(runtime, size)
    difference = Difference()
    for known, prediction in zip(expected or (), found, strict=bool(expected)):
        difference |= compare(known, prediction, KEYPOINT)
    bound = BOUNDS[manifest.precision]
    failed = difference.missed or difference.extra
    failed = failed or difference.keypoint_px > bound.keypoint_px
    if failed or difference.mask_iou < bound.mask_iou:
        raise SelfTestFailed(
            f"{runtime.name} ({manifest.precision}) does not find the people it should in the "
            f"test images: {difference}; expected keypoints within {bound.keypoint_px} px and "
            f"mask IoU from {bound.mask_iou}"
        )
    return difference


def find_people_of(runtime: Runtime, size: tuple[int, int]) -> list[Prediction]:
    """The people a runtime finds in the test images, each in a frame of (H, W).

    Raises:
        SelfTestFailed: an output is not what it should be.
    """
    config = runtime.manifest.config
    grid = Codec.of(config).mask_grid
    thresholds = Thresholds(WEAK, KEYPOINT, MASK, config.decode.people)
    predictions = []
    for name in IMAGES:
        image = _read(name, size)
        content = (image.shape[0], image.shape[1])
        frame = np.zeros((*size, 3), np.uint8)
        frame[: content[0], : content[1]] = image
        raw = submit_frame(runtime, frame).collect()
        _check_values(raw, config, runtime)
        letterbox = Letterbox(1.0, 1.0, content, size)
        predictions.append(assemble(raw, letterbox, content, grid, thresholds))
    return predictions


def _find_expected(
    runtime: Runtime, size: tuple[int, int], program: Path | None
) -> list[Prediction] | None:
    """The people that ONNX Runtime finds with the same file; None where it is that or none is."""
    if runtime.name == "onnxruntime" or program is None or program.suffix != ".onnx":
        return None
    reference = OnnxRuntime(program, "cpu", 1)
    try:
        return find_people_of(reference, size)
    finally:
        reference.close()


def _read(name: str, size: tuple[int, int]) -> np.ndarray:
    """A test image reduced to SIDE, or to less where the frame is smaller: RGB."""
    image = Images(CORE / "samples").read(name)
    scale = min(SIDE / max(image.shape), size[0] / image.shape[0], size[1] / image.shape[1])
    reduced = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return cv2.resize(image, reduced, interpolation=cv2.INTER_AREA)


def _check_values(raw: Raw, config: Config, runtime: Runtime) -> None:
    """Raise SelfTestFailed where outputs are not as `Raw` says; later frames are not looked at."""
    gives = f"{runtime.name} ({runtime.manifest.precision}) gives"
    people, keypoints = raw.score.size, len(SKELETONS[config.fields.skeleton].keypoints)
    expected = {
        "score": (people,),
        "keypoints": (people, keypoints, 3),
        "centroids": (people, *raw.centroids.shape[1:2], 4),
        "mask_probability": raw.owner.shape,
    }
    for name, values in vars(raw).items():
        wrong = np.count_nonzero(~np.isfinite(values))
        if wrong:
            raise SelfTestFailed(
                f"{gives} {wrong} of {values.size} values of '{name}' that are not finite"
            )
        if values.shape != expected.get(name, values.shape):
            raise SelfTestFailed(
                f"{gives} '{name}' of shape {values.shape}, expected {expected[name]}"
            )
    if raw.owner.ndim != 2 or not 0 <= raw.owner.min() <= raw.owner.max() <= people:
        raise SelfTestFailed(
            f"{gives} 'owner' of shape {raw.owner.shape} with {raw.owner.min()} to "
            f"{raw.owner.max()}, expected two axes and 0 to {people}"
        )


def _fit(manifest: Manifest, size: tuple[int, int]) -> tuple[int, int]:
    """The size, or the next larger one that the model takes."""
    height, width = map(side_rule(manifest.config).round_up, size)
    return height, width


def read_expected(weights_sha256: str, size: tuple[int, int]) -> list[Prediction] | None:
    """The people expected in the test images; None where the package has none that fit.

    Args:
        weights_sha256: of the model.
        size: (H, W) of the frames.
    """
    if size[0] < LEAST[0] or size[1] < LEAST[1]:
        return None
    for path in sorted((CORE / "models").glob("*.expected.npz")):
        with np.load(path) as content:
            if str(content["weights_sha256"]) == weights_sha256:
                return [_unpack(content, index) for index in range(len(IMAGES))]
    return None


def write_expected(path: Path, weights_sha256: str, predictions: list[Prediction]) -> None:
    """Write the people of the test images, found in frames of FRAME."""
    arrays = {"weights_sha256": np.array(weights_sha256)}
    for index, prediction in enumerate(predictions):
        persons = prediction.persons
        arrays[f"score_{index}"] = np.array([p.score for p in persons], np.float32)
        arrays[f"keypoints_{index}"] = np.stack([p.keypoints for p in persons])
        arrays[f"labels_{index}"] = prediction.labels.astype(np.uint8)
    np.savez_compressed(path, allow_pickle=False, **arrays)


def _unpack(content: Mapping[str, np.ndarray], index: int) -> Prediction:
    labels = content[f"labels_{index}"]
    people = zip(content[f"score_{index}"], content[f"keypoints_{index}"], strict=True)
    persons = []
    for number, (score, points) in enumerate(people, 1):
        seen = points[points[:, 2] >= KEYPOINT, :2]
        box = np.concatenate((seen.min(0), seen.max(0)))
        mask, none = labels == number, np.zeros((0, 4), np.float32)
        persons.append(Person(float(score), points, box, mask, (0, 0), none))
    return Prediction((labels.shape[0], labels.shape[1]), tuple(persons))
