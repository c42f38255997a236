"""The same people from every runtime, and programs of nothing but operators that were proved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest

from kdc_core.codec.skeleton import COCO17
from kdc_core.data.datasets import open_data
from kdc_core.data.images import Images
from kdc_core.inference.assembly import Thresholds
from kdc_core.inference.compare import SURE, WEAK, Difference, compare
from kdc_core.inference.model_files import MODELS
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.runtimes.choice import choose_runtime

from .conftest import SHARED

OTHERS = ("openvino", "torch")
SIDES = (320, 448, 576)
# Operators that ONNX Runtime, OpenVINO, torch and TensorRT-RTX were seen to execute or build, and
# no control flow or size that depends on data.
ALLOWED = """
Add And ArgMax BatchNormalization Cast Clip Concat ConstantOfShape Conv DepthToSpace Div Equal Exp
Expand Floor Gather GatherElements GatherND Greater GreaterOrEqual Less LessOrEqual Log MatMul Max
MaxPool Min Mod Mul Neg Not Or Pad Pow Range Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd
ReduceSum Relu Reshape Resize Round Shape Sigmoid Slice Softmax Split Sqrt Squeeze Sub TopK
Transpose Unsqueeze Where
""".split()
QUANTIZED = ("QuantizeLinear", "DequantizeLinear")


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.onnx")), ids=lambda path: path.name)
def test_a_program_has_only_operators_that_were_proved(path: Path) -> None:
    model = onnx.load(path)
    allowed = {*ALLOWED, *(QUANTIZED if ".int8" in path.name else ())}
    assert {node.op_type for node in model.graph.node} <= allowed
    assert {node.domain for node in model.graph.node} == {""}
    assert [entry.version for entry in model.opset_import] == [20]


@cache
def predictor(runtime: str, side: int) -> Predictor:
    opened = Predictor(_runtime(runtime), longer_side=side)
    opened.thresholds = Thresholds(WEAK, 0.3, 0.5)
    return opened


@cache
def _runtime(name: str):  # type: ignore[no-untyped-def]
    if name == "openvino":
        pytest.importorskip("openvino")
    return choose_runtime("kdc_light", name, threads=1, precision="fp32").runtime


def difference(runtime: str, side: int, images: Iterable[np.ndarray]) -> Difference:
    """How far a runtime is from ONNX Runtime over some images."""
    worst = Difference()
    for image in images:
        expected, found = predictor("onnxruntime", side)(image), predictor(runtime, side)(image)
        worst |= compare(expected, found, 0.3)
    return worst


def assert_same_people(found: Difference) -> None:
    assert found.missed == found.extra == 0, found
    assert found.keypoint_px < 0.5 and found.mask_iou > 0.99, found


def _samples(samples: Path) -> Iterator[np.ndarray]:
    images = Images(samples)
    for path in sorted(samples.glob("*.jpg")):
        yield images.read(path.name)


@pytest.mark.parametrize("runtime", OTHERS)
def test_every_runtime_finds_the_same_people_in_one_image(runtime: str, samples: Path) -> None:
    found = difference(runtime, SIDES[0], [next(_samples(samples))])
    assert found.people >= 1
    assert_same_people(found)


@pytest.mark.all
@pytest.mark.parametrize("runtime", OTHERS)
@pytest.mark.parametrize("side", SIDES)
def test_every_runtime_finds_the_same_people_in_the_samples(
    runtime: str, side: int, samples: Path
) -> None:
    found = difference(runtime, side, _samples(samples))
    assert found.people >= 15
    assert_same_people(found)


@pytest.mark.all
@pytest.mark.parametrize("runtime", OTHERS)
def test_every_runtime_finds_the_same_people_in_images_of_coco(runtime: str) -> None:
    if not (SHARED / "data" / "coco_person").is_dir():
        pytest.skip("no ../shared/data/coco_person beside the repository")
    annotations, images = open_data(SHARED / "data" / "coco_person", "val", COCO17)
    some = annotations.images[::14][:20]
    found = difference(runtime, 576, (images.read(image.file_name) for image in some))
    assert len(some) == 20 and found.people >= 15
    assert_same_people(found)


def test_a_person_whom_one_prediction_lacks_is_missed_or_extra(samples: Path) -> None:
    prediction = predictor("onnxruntime", 320)(next(_samples(samples)))
    sure = sum(person.score >= SURE for person in prediction.persons)
    nobody = type(prediction)(prediction.size, ())
    assert compare(prediction, nobody, 0.3).missed == sure >= 1
    assert compare(nobody, prediction, 0.3).extra == sure
    same = compare(prediction, prediction, 0.3)
    assert (same.people, same.missed, same.keypoint_px, same.mask_iou) == (sure, 0, 0.0, 1.0)
