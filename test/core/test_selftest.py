"""A runtime's self-test: what passes, and what is refused by how much."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import NoReturn

import numpy as np
import pytest

from kdc_core.inference.assembly import Raw
from kdc_core.inference.manifest import Manifest, Precision
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.runtimes.onnxruntime import OnnxRuntime
from kdc_core.inference.runtimes.protocol import Pending, Runtime, UnusableRuntime
from kdc_core.inference.selftest import SelfTestFailed, self_test

from .conftest import PROGRAM


class Bent:
    """A runtime whose answers are changed."""

    name = "bent"

    def __init__(self, runtime: Runtime, manifest: Manifest, bend: str):
        self._runtime, self.manifest, self._bend = runtime, manifest, bend

    def describe(self) -> dict[str, str]:
        return {}

    def close(self) -> None:
        pass

    def submit(self, frame: np.ndarray) -> Pending[Raw]:
        return Pending(lambda: self._bent(self._runtime.submit(frame).collect()))

    def _bent(self, raw: Raw) -> Raw:
        if self._bend == "nobody":
            return replace(raw, score=0 * raw.score)
        if self._bend == "nan":
            score = raw.score.copy()
            score[-1] = np.nan
            return replace(raw, score=score)
        if self._bend == "shape":
            return replace(raw, keypoints=raw.keypoints[:-1])
        if self._bend == "owner":
            return replace(raw, owner=raw.owner + 99)
        if self._bend == "more":  # somebody beside the image, as sure as the first
            invented = np.roll(raw.owner == 1, 128, 1)
            owner, mask = raw.owner.copy(), raw.mask_probability.copy()
            owner[invented], mask[invented] = len(raw.score), 1
            score, keypoints = raw.score.copy(), raw.keypoints.copy()
            score[-1], keypoints[-1] = score[0], keypoints[0] + (256, 0, 0)
            return Raw(score, keypoints, raw.centroids, owner, mask)
        if self._bend == "masks":
            owner, mask = (np.roll(m, 8, 1) for m in (raw.owner, raw.mask_probability))
            return replace(raw, owner=owner, mask_probability=mask)
        keypoints = raw.keypoints.copy()
        keypoints[..., 0] += float(self._bend)
        return replace(raw, keypoints=keypoints)


@pytest.fixture(scope="module")
def straight() -> Runtime:
    return OnnxRuntime(PROGRAM, "cpu", 1)


@pytest.mark.parametrize("size", [(352, 448), (480, 640)])
def test_the_size_of_the_frame_moves_nobody(straight: Runtime, size: tuple[int, int]) -> None:
    difference = self_test(straight, size)
    assert difference.people == 4 and difference.keypoint_px < 0.2


@pytest.mark.parametrize(
    ("bend", "precision", "text"),
    [
        ("nobody", "fp32", "4 missed"),
        ("more", "fp32", "4 people matched, 0 missed, 2 more; keypoints within 0.0"),
        ("nan", "fp32", "gives 1 of 32 values of 'score' that are not finite"),
        ("shape", "fp32", r"gives 'keypoints' of shape \(31, 17, 3\), expected \(32, 17, 3\)"),
        ("owner", "fp32", r"with 99 to 1\d\d, expected two axes and 0 to 32"),
        ("masks", "int8-cpu", "mask IoU from 0.0"),
        ("0.6", "fp32", "within 0.6.* px"),
        ("2.1", "fp16", "within 2.1.* px"),
        ("4.1", "int8-trt", "within 4.1.* px"),
    ],
)
def test_a_runtime_that_answers_otherwise_is_refused_by_how_much(
    straight: Runtime, bend: str, precision: Precision, text: str
) -> None:
    manifest = straight.manifest.model_copy(update={"precision": precision})
    with pytest.raises(SelfTestFailed, match=text):
        self_test(Bent(straight, manifest, bend))


@pytest.mark.parametrize(("bend", "precision"), [("0.4", "fp32"), ("1.8", "fp16")])
def test_a_runtime_that_is_near_enough_passes(
    straight: Runtime, bend: str, precision: Precision
) -> None:
    manifest = straight.manifest.model_copy(update={"precision": precision})
    self_test(Bent(straight, manifest, bend))


def test_what_a_library_raises_of_a_frame_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a GPU whose memory is full: onnxruntime's errors are of classes of its own."""
    runtime = OnnxRuntime(PROGRAM, "cpu", 1)

    def fail(*_: object) -> NoReturn:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(runtime._session, "raw", SimpleNamespace(run=fail))
    for run in (self_test, lambda runtime: Predictor(runtime)(np.zeros((64, 64, 3), np.uint8))):
        with pytest.raises(UnusableRuntime, match="onnxruntime could not run a frame: out of mem"):
            run(runtime)


def test_other_weights_are_compared_with_onnxruntime(straight: Runtime) -> None:
    other = straight.manifest.model_copy(update={"weights_sha256": "of nobody"})
    assert self_test(Bent(straight, other, "0"), None, PROGRAM).people == 4
    with pytest.raises(SelfTestFailed, match="within 1.0.* px"):
        self_test(Bent(straight, other, "1"), None, PROGRAM)
    assert self_test(Bent(straight, other, "1")).people == 0
