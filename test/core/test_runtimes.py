"""Runtimes: frames under way, and the frames and files that each refuses."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest

from kdc_core.data.images import Images
from kdc_core.inference.assembly import Raw
from kdc_core.inference.manifest import FrameError
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.runtimes.choice import choose_runtime
from kdc_core.inference.runtimes.onnxruntime import OnnxRuntime
from kdc_core.inference.runtimes.protocol import Runtime, UnusableRuntime
from kdc_core.inference.selftest import self_test

from .conftest import PROGRAM

HERE = ("onnxruntime", "openvino", "torch")


@pytest.fixture(scope="module", params=HERE)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    if request.param == "openvino":
        pytest.importorskip("openvino")
    return choose_runtime("kdc_light", request.param, threads=1, precision="fp32").runtime


@pytest.mark.parametrize("size", [(450, 576), (448, 570), (0, 576), (448, 16)])
def test_sides_that_do_not_fit_are_refused_by_every_runtime(
    runtime: Runtime, size: tuple[int, int]
) -> None:
    with pytest.raises(FrameError, match=f"{size[0]} x {size[1]} does not fit .* of 32"):
        runtime.submit(np.zeros((*size, 3), np.uint8)).collect()


def test_other_frames_are_refused_by_every_runtime(runtime: Runtime) -> None:
    frame = np.zeros((64, 128, 3), np.uint8)
    for wrong in (frame.astype(np.float32), frame[:, ::2], frame[..., 0]):
        with pytest.raises(FrameError, match="expected a contiguous .H, W, 3. uint8 frame"):
            runtime.submit(wrong).collect()
    assert runtime.submit(frame).collect().score.shape == (32,)


def assert_same(ours: Raw, theirs: Raw) -> None:
    for name, value in vars(theirs).items():
        assert np.array_equal(getattr(ours, name), value), name


@pytest.fixture(scope="module")
def frames(samples: Path) -> list[np.ndarray]:
    """Small frames of one size, with people in them."""
    images = Images(samples)
    names = sorted(path.name for path in samples.glob("*.jpg"))[:4]
    return [cv2.resize(images.read(name), (128, 64)) for name in names]


def test_two_frames_under_way_do_not_touch_each_other(
    runtime: Runtime, frames: list[np.ndarray]
) -> None:
    """In every runtime; collected in another thread than they were submitted in."""
    alone = [runtime.submit(frame).collect() for frame in frames]
    assert all(found.score.max() > 0.5 for found in alone), "there are people to be mistaken"
    with ThreadPoolExecutor(1) as other:
        pending = runtime.submit(frames[0])
        for number, frame in enumerate(frames[1:]):
            found = other.submit(pending.collect)
            pending = runtime.submit(frame)
            assert_same(found.result(), alone[number])
        assert_same(other.submit(pending.collect).result(), alone[-1])


def test_a_frame_refused_beside_one_under_way_leaves_it_alone(
    runtime: Runtime, frames: list[np.ndarray]
) -> None:
    expected = runtime.submit(frames[0]).collect()
    pending = runtime.submit(frames[0])
    with pytest.raises(FrameError):
        runtime.submit(frames[1][1:])
    assert_same(pending.collect(), expected)


@pytest.mark.parametrize(
    "name", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.all), "torch"]
)
def test_closing_waits_for_frames_under_way(name: str, frames: list[np.ndarray]) -> None:
    if name == "openvino":
        pytest.importorskip("openvino")
    opened = choose_runtime("kdc_light", name, threads=1).runtime
    expected = opened.submit(frames[0]).collect()
    pending = [opened.submit(frames[0]) for _ in range(2)]
    opened.close()
    for each in pending:
        assert_same(each.collect(), expected)


def test_every_runtime_says_what_it_is(runtime: Runtime) -> None:
    about = runtime.describe()
    assert about["runtime"] == runtime.name and about["device"] == "cpu"
    assert about["precision"] == "fp32" and about["threads"] == "1"


def _changed(folder: Path, edit: Callable[[Any], object]) -> Path:
    """The shipped program, edited as onnx's ModelProto."""
    import onnx

    model = onnx.load(PROGRAM)
    edit(model)
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"


def _use_operator(model: Any, domain: str, version: int) -> None:
    """Put an operator that nobody knows into the graph."""
    model.opset_import.add(domain=domain, version=version)
    model.graph.node[5].domain, model.graph.node[5].op_type = domain, "Nonsense"


@pytest.mark.parametrize(
    ("edit", "needs", "cause"),
    [
        (
            lambda model: setattr(model, "ir_version", 99),
            "IR version 99 and the operators of ai.onnx 20",
            r"max supported IR version: \d+",
        ),
        (
            lambda model: setattr(model.opset_import[0], "version", 98),
            "IR version 10 and the operators of ai.onnx 98",
            r"ai\.onnx is till opset \d+",
        ),
        (
            lambda model: _use_operator(model, "own.maker", 97),
            "IR version 10 and the operators of ai.onnx 20, own.maker 97",
            "own.maker:Nonsense",
        ),
    ],
    ids=["IR version", "opset", "operator"],
)
def test_a_file_that_cannot_be_run_is_told_with_versions_and_whole_cause(
    edit: Callable[[Any], object], needs: str, cause: str, tmp_path: Path
) -> None:
    path = _changed(tmp_path, edit)
    found = f"found onnxruntime {onnxruntime.__version__}, which says: "
    with pytest.raises(UnusableRuntime, match=f"It needs {needs}; {found}.*{cause}"):
        OnnxRuntime(path, "cpu", 1)


def test_openvino_tells_the_same_of_a_file_that_cannot_be_run(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    from kdc_core.inference.runtimes.openvino import OpenVinoRuntime

    path = _changed(tmp_path, lambda model: _use_operator(model, "own.maker", 97))
    needs = "IR version 10 and the operators of ai.onnx 20, own.maker 97"
    with pytest.raises(UnusableRuntime) as raised:
        OpenVinoRuntime(path, "cpu", 1)
    text = str(raised.value)
    assert f"It needs {needs}; found openvino {openvino.__version__}, which says: " in text
    assert "Nonsense" in text.partition("which says")[2]


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_a_size_that_does_not_fit_is_refused_when_opening(runtime: str) -> None:
    with pytest.raises(FrameError, match="450 x 576 does not fit"):
        Predictor.from_pretrained("kdc_light", runtime, threads=1, size=(450, 576))


def test_closing_twice_does_nothing_more() -> None:
    for runtime in ("onnxruntime", "torch"):
        predictor = Predictor.from_pretrained("kdc_light", runtime, threads=1)
        predictor.close()
        predictor.close()


def test_a_runtime_that_finds_everybody_passes(runtime: Runtime) -> None:
    difference = self_test(runtime)
    assert difference.people == 4 and difference.keypoint_px < 0.05 < 0.99 < difference.mask_iou
