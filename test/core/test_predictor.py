"""The shipped model on real and on impossible input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle_tools

from kdc_core.codec.grid import Grid, Letterbox
from kdc_core.codec.results import Prediction
from kdc_core.config_file import load_preset
from kdc_core.data.images import Images
from kdc_core.data.reading import read_annotations
from kdc_core.errors import KdcError
from kdc_core.inference.assembly import (
    MASK_SCORE_POWERS,
    SCORE_POWERS,
    Evidence,
    Raw,
    Thresholds,
    assemble,
    at_image,
    weigh,
)
from kdc_core.inference.export import cut_before_decode, export_onnx
from kdc_core.inference.manifest import KEY, OUTPUTS, ManifestError, field_names
from kdc_core.inference.model_files import find_model
from kdc_core.inference.predictor import LARGEST_SIDE, Predictor, letterbox_image
from kdc_core.inference.rotate import ROTATIONS, Degrees, rotate_back
from kdc_core.inference.runtimes.choice import choose_runtime
from kdc_core.inference.runtimes.protocol import UnusableRuntime
from kdc_core.network.weights import load_model, save_model
from kdc_core.show.people_json import run_lengths

# What the exported program may consist of: operators that ONNX Runtime, OpenVINO and TensorRT
# execute with fixed shapes. No control flow, no data-dependent sizes.
FORBIDDEN = {
    "Loop",
    "If",
    "Scan",
    "NonZero",
    "ScatterND",
    "ScatterElements",
    "NonMaxSuppression",
    "Compress",
    "Unique",
}


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_pretrained("kdc_light", threads=2)


@pytest.fixture(scope="module")
def image(samples: Path) -> np.ndarray:
    return Images(samples).read("000000409475.jpg")


def test_finds_the_people_of_the_sample_images(predictor: Predictor, samples: Path) -> None:
    """Large, well visible people: at least two thirds of them, their boxes overlapping."""
    found = wanted = 0
    store = Images(samples)
    for annotated in read_annotations(samples / "annotations.json").images:
        prediction = predictor(store.read(annotated.file_name))
        for person in annotated.annotations:
            x0, y0, x1, y1 = person.box
            if (person.keypoints[:, 2] > 0).sum() >= 10 and y1 - y0 > 120:
                wanted += 1
                found += any(_iou(p.box, person.box) > 0.6 for p in prediction.persons)
    assert wanted >= 8
    assert found >= 2 * wanted / 3


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    overlap = float(np.prod(np.maximum(high - low, 0)))
    areas = [float(np.prod(box[2:] - box[:2])) for box in (a, b)]
    return overlap / (sum(areas) - overlap)


@pytest.mark.parametrize("color", [0, 114, 255])
def test_an_empty_image_has_nobody(predictor: Predictor, color: int) -> None:
    prediction = predictor(np.full((480, 640, 3), color, np.uint8))
    assert len(prediction) == 0
    assert prediction.labels.shape == (480, 640) and not prediction.labels.any()


def test_a_prediction_agrees_with_itself(predictor: Predictor, image: np.ndarray) -> None:
    prediction = predictor(image)
    assert prediction.size == image.shape[:2]
    assert len(prediction) >= 2
    scores = [p.score for p in prediction.persons]
    assert scores == sorted(scores, reverse=True) and 0 < min(scores) and max(scores) <= 1
    for index, person in enumerate(prediction.persons):
        full = person.full_mask(prediction.size)
        assert (full == (prediction.labels == index + 1)).all()
        assert person.keypoints.shape == (17, 3) and np.isfinite(person.keypoints).all()
        rows, columns = np.nonzero(full)
        if len(rows):
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert person.box == pytest.approx(np.array(box) - 0.5)
        assert person.centroids[:, 3].sum() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("size", [(1, 1), (7, 1000), (2000, 40), (33, 31), (1080, 1920)])
def test_any_size_of_image(predictor: Predictor, image: np.ndarray, size: tuple[int, int]) -> None:
    prediction = predictor(cv2.resize(image, size[::-1]))
    assert prediction.labels.shape == size


def test_an_image_that_is_made_much_smaller_is_not_aliased() -> None:
    """A checkerboard of single pixels comes to be gray."""
    rows, columns = np.indices((200, 200))
    checks = np.uint8(255 * ((rows + columns) % 2))
    letterbox = Letterbox.into((200, 200), (60, 64))
    frame = letterbox_image(np.dstack([checks] * 3), letterbox)
    assert letterbox.content == (60, 60) and frame.shape == (60, 64, 3)
    assert np.abs(frame[:, :60].astype(int) - 127).max() < 20
    assert not frame[:, 60:].any()


@pytest.mark.parametrize("degrees", ROTATIONS)
def test_people_turned_back_keep_their_timings(degrees: Degrees) -> None:
    turned = Prediction((4, 6), (), {"model": 1.0})
    assert rotate_back(turned, degrees).timings_ms == {"model": 1.0}


def test_views_with_strides_are_accepted(predictor: Predictor, image: np.ndarray) -> None:
    plain = predictor(np.ascontiguousarray(image[::2, ::2]))
    viewed = predictor(image[::2, ::2])
    assert (plain.labels == viewed.labels).all()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((480, 640), np.uint8),
        np.zeros((480, 640, 4), np.uint8),
        np.zeros((480, 640, 3), np.float32),
        np.zeros((0, 640, 3), np.uint8),
        np.zeros((LARGEST_SIDE + 1, 1, 3), np.uint8),
        np.zeros((1, LARGEST_SIDE + 1, 3), np.uint8),
        "image.jpg",
        None,
    ],
)
def test_other_things_than_images_are_refused(predictor: Predictor, image: object) -> None:
    with pytest.raises(ValueError, match="expected (an .H, W, 3. uint8 array|sides of 1 to)"):
        predictor(image)  # type: ignore[arg-type]


def test_bgr_images_give_what_rgb_images_give(predictor: Predictor, image: np.ndarray) -> None:
    reads_bgr = Predictor(predictor.runtime, image_format="bgr")
    ours, theirs = predictor(image), reads_bgr(image[..., ::-1])
    assert len(ours) == len(theirs) > 0
    for person, same in zip(ours.persons, theirs.persons, strict=True):
        assert (person.keypoints == same.keypoints).all() and (person.mask == same.mask).all()
    with pytest.raises(ValueError, match="expected 'rgb' or 'bgr', got 'RGB'"):
        Predictor(predictor.runtime, image_format="RGB")  # type: ignore[arg-type]


def test_the_arithmetic_of_the_caller_stays_as_it_is(image: np.ndarray) -> None:
    """No runtime has the process compute without denormal numbers."""
    denormal = np.array([1e-40], np.float32)
    Predictor.from_pretrained("kdc_light", "onnxruntime")(image)
    assert (denormal * np.float32(0.5))[0] > 0


def test_thresholds_hold(predictor: Predictor, image: np.ndarray) -> None:
    runtime = predictor.runtime
    everybody, nobody, one = (Predictor(runtime) for _ in range(3))
    everybody.thresholds = Thresholds(0.0, 0.3, 0.5)
    nobody.thresholds = Thresholds(1.0, 0.3, 0.5)
    one.thresholds = Thresholds(0.0, 0.3, 0.5, max_persons=1)
    assert len(everybody(image)) > len(one(image)) == 1
    assert len(nobody(image)) == 0
    strict = Predictor(runtime)
    strict.thresholds = Thresholds(0.0, 0.3, 0.9)
    loose = everybody(image).labels > 0
    assert 0 < (strict(image).labels > 0).sum() < loose.sum()


def test_two_images_under_way_keep_their_own_size_and_thresholds(
    predictor: Predictor, image: np.ndarray
) -> None:
    two = Predictor(predictor.runtime)
    two.thresholds = Thresholds(0.5, 0.3, 0.5)
    half = np.ascontiguousarray(image[:, : image.shape[1] // 2])
    alone = two(image), two(half)
    camera = image.copy()
    first = two.submit(camera)
    camera[:] = 0
    second = two.submit(half)
    two.thresholds = Thresholds(1.0, 0.3, 0.5)
    for found, expected in zip((first.collect(), second.collect()), alone, strict=True):
        assert found.size == expected.size
        assert_alike(found, expected)
        assert set(found.timings_ms) == {"letterbox", "model", "assembly"}
    assert len(two(image)) == 0


def assert_alike(ours: Prediction, theirs: Prediction) -> None:
    """The same people, whatever their order: rows may change places where scores tie."""
    assert len(ours) == len(theirs) > 0
    for person in ours.persons:
        same = min(
            theirs.persons, key=lambda p: float(np.abs(p.keypoints - person.keypoints).sum())
        )
        assert same.keypoints[:, :2] == pytest.approx(person.keypoints[:, :2], abs=0.05)
        assert same.score == pytest.approx(person.score, abs=1e-3)
    assert ((ours.labels > 0) == (theirs.labels > 0)).mean() > 0.999


def test_torch_and_onnxruntime_answer_alike(predictor: Predictor, samples: Path) -> None:
    torch_predictor = Predictor.from_pretrained("kdc_light", runtime="torch", threads=2)
    store = Images(samples)
    for annotated in read_annotations(samples / "annotations.json").images[:3]:
        read = store.read(annotated.file_name)
        assert_alike(predictor(read), torch_predictor(read))


def test_the_program_is_static_but_for_its_size() -> None:
    model = onnx.load(find_model("kdc_light", (".onnx",)))
    assert not {node.op_type for node in model.graph.node} & FORBIDDEN
    assert [o.name for o in model.graph.output] == list(OUTPUTS)
    network = cut_before_decode(find_model("kdc_light", (".onnx",)))
    assert [o.name for o in network.graph.output] == field_names(load_preset("kdc_light"))
    assert not {n.op_type for n in network.graph.node} & {"TopK", "MaxPool", "ArgMax"}


def test_shipped_files_keep_to_their_sizes_and_belong_together() -> None:
    import hashlib

    weights = find_model("kdc_light", (".safetensors",))
    program = find_model("kdc_light", (".onnx",))
    assert weights.stat().st_size <= 15e6 and program.stat().st_size <= 25e6
    manifest = choose_runtime("kdc_light").runtime.manifest
    assert manifest.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    preset = load_preset("kdc_light")
    assert manifest.config.decode == preset.decode and manifest.config.predict == preset.predict


@pytest.mark.slow
def test_an_exported_program_answers_as_its_model_does(tmp_path: Path, image: np.ndarray) -> None:
    """The shipped network at one level: half the program to export."""
    network, provenance = load_model(find_model("kdc_light", (".safetensors",)))
    decode = network.config.decode.model_copy(update={"pyramid": [1]})
    network.config = network.config.model_copy(update={"decode": decode})
    save_model(network, tmp_path / "model.safetensors", provenance)
    export_onnx(tmp_path / "model.safetensors", tmp_path / "model.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.safetensors"]
    exported, model = (
        Predictor.from_pretrained(str(tmp_path / f"model.{kind}"))(image)
        for kind in ("onnx", "safetensors")
    )
    assert_alike(exported, model)


@pytest.mark.all
def test_export_writes_the_shipped_program(tmp_path: Path, image: np.ndarray) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(find_model("kdc_light", (".safetensors",)), path)
    again = Predictor.from_pretrained(str(path))(image)
    assert (again.labels == Predictor.from_pretrained("kdc_light")(image).labels).all()


def _broken_programs(folder: Path) -> dict[str, Path]:
    whole = find_model("kdc_light", (".onnx",)).read_bytes()
    contents = {"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"no model\n" * 99}
    for name, data in contents.items():
        (folder / f"{name}.onnx").write_bytes(data)
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    value = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy"]
    graph = onnx.helper.make_graph([node], "g", value[:1], value[1:])
    opset = onnx.helper.make_opsetid("", 20)
    foreign = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
    onnx.save(foreign, folder / "foreign.onnx")
    foreign.metadata_props.add(key=KEY, value=json.dumps({"schema_number": 99}))
    onnx.save(foreign, folder / "other version.onnx")
    return {p.stem: p for p in folder.glob("*.onnx")}


@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [
        ("truncated", ManifestError, "not an ONNX file"),
        ("empty", KdcError, "empty.onnx"),
        ("text", ManifestError, "not an ONNX file"),
        ("foreign", ManifestError, "not a KDC program"),
        ("other version", ManifestError, "another version"),
    ],
)
def test_broken_programs_are_refused_with_a_reason(
    kind: str, error: type[Exception], text: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=text):
        Predictor.from_pretrained(str(_broken_programs(tmp_path)[kind]))


def test_a_program_whose_weights_were_changed_is_refused(tmp_path: Path) -> None:
    model = onnx.load(find_model("kdc_light", (".onnx",)))
    first = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    mirrored = onnx.numpy_helper.to_array(first)[::-1].copy()
    first.CopyFrom(onnx.numpy_helper.from_array(mirrored, first.name))
    onnx.save(model, tmp_path / "changed.onnx")
    with pytest.raises(UnusableRuntime, match="does not find the people it should.*missed"):
        choose_runtime(str(tmp_path / "changed.onnx"), "onnxruntime")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"model": "kdc_huge"}, "^no model 'kdc_huge' with .onnx or .safetensors: expected"),
        ({"model": "/nowhere/m.onnx"}, "no model file"),
        ({"runtime": "caffe"}, "no runtime 'caffe'"),
        ({"device": "tpu"}, "no device 'tpu': expected auto, cpu, cuda or cuda:N"),
        ({"device": "cpu:0"}, "no device 'cpu:0'"),
        ({"device": "cuda:x", "runtime": "torch"}, "no device 'cuda:x'"),
        ({"runtime": "onnxruntime", "device": "cuda"}, "runs on the CPU"),
    ],
)
def test_what_cannot_run_says_why(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(UnusableRuntime, match=text):
        Predictor.from_pretrained(**arguments)


def _raw(owner: np.ndarray, probability: np.ndarray, scores: list[float]) -> Raw:
    people = len(scores)
    keypoints = np.zeros((people, 17, 3), np.float32)
    centroids = np.zeros((people, 5, 4), np.float32)
    return Raw(
        np.array(scores, np.float32),
        keypoints,
        centroids,
        owner.astype(np.int32),
        probability.astype(np.float32),
    )


def test_assembly_orders_filters_and_drops_people_with_nothing() -> None:
    owner = np.zeros((16, 16), int)
    owner[:8, :8], owner[8:, 8:] = 1, 3
    raw = _raw(owner, np.where(owner > 0, 0.9, 0.0), [0.4, 0.9, 0.8, 0.0])
    whole = Letterbox(1.0, 1.0, (32, 32), (32, 32))
    prediction = assemble(raw, whole, (32, 32), Grid(2, 0.5), Thresholds(0.1, 0.3, 0.5))
    # Person 2 has neither pixel nor visible keypoint; person 4 does not exist.
    third, first = weigh(Evidence.of(raw, Grid(2, 0.5), 0.5), SCORE_POWERS)[[2, 0]]
    assert [p.score for p in prediction.persons] == pytest.approx([third, first], abs=1e-6)
    assert 0.8 > third > first > 0.1
    assert (prediction.labels[20:30, 20:30] == 1).all() and (
        prediction.labels[:14, :14] == 2
    ).all()
    assert set(np.unique(prediction.labels)) == {0, 1, 2}


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.25, 0.5, 1.0]),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.sampled_from([Grid(2), Grid(2, 0.5), Grid(2, -1.0)]),
)
@settings(deadline=None)
def test_masks_are_those_of_the_whole_image(
    seed: int, scale: float, size: tuple[int, int], grid: Grid
) -> None:
    """Only the part of it is looked at where anybody may be; also in the padding, and nowhere."""
    random = np.random.default_rng(seed)
    owner = random.integers(0, 3, (24, 32))
    probability = np.zeros(owner.shape)
    top, left = random.integers(0, (24, 32))
    part = (slice(top, top + random.integers(0, 9)), slice(left, left + random.integers(0, 9)))
    probability[part] = random.random(probability[part].shape)
    letterbox = Letterbox(scale, scale, size, (48, 64))
    raw = _raw(owner, probability, [0.9, 0.8])
    raw.keypoints[..., 2] = 0.9
    found = assemble(raw, letterbox, size, grid, Thresholds(0.0, 0.3, 0.5))
    matrix = letterbox.matrix(grid)
    near = at_image(owner.astype(np.uint8), matrix, size, cv2.INTER_NEAREST)
    sure = at_image(probability.astype(np.float32), matrix, size, cv2.INTER_LINEAR) >= 0.5
    best_first = np.argsort(-weigh(Evidence.of(raw, grid, 0.5), SCORE_POWERS), kind="stable")
    for number, person in zip(best_first + 1, found.persons, strict=True):
        expected = (near == number) & sure
        assert (person.full_mask(size) == expected).all()
        if expected.any():
            rows, columns = np.nonzero(expected)
            corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert (person.box + 0.5).tolist() == corners


def test_a_person_whose_keypoints_lie_in_its_mask_scores_higher() -> None:
    owner = np.ones((16, 16), int)
    raw = _raw(owner, np.full(owner.shape, 0.9), [1.0, 1.0])
    raw.keypoints[0, :3] = (15, 15, 0.6), (20, 8, 0.6), (25, 20, 0.6)
    raw.keypoints[1] = raw.keypoints[0]  # in the mask of the other
    evidence = Evidence.of(raw, Grid(2, 0.5), 0.5)
    assert evidence.mask == pytest.approx([0.9, 0.5], abs=1e-6)
    assert evidence.inside == pytest.approx([1.0, 0.5], abs=1e-6)
    # Of the keypoints' box, which has unlabelled ones, too: from (0, 0) to (25, 20); of the mask.
    pose, mask = np.sqrt(25 * 20), 2 * (16 + 1)
    assert evidence.size == pytest.approx([mask / (mask + 100), pose / (pose + 100)], abs=1e-6)
    assert evidence.fill == pytest.approx([1.0, 2 / pose], abs=1e-6)
    whole = Letterbox(1.0, 1.0, (32, 32), (32, 32))
    found = assemble(raw, whole, (32, 32), Grid(2, 0.5), Thresholds(0.0, 0.3, 0.5))
    for name, powers in (("score", SCORE_POWERS), ("mask_score", MASK_SCORE_POWERS)):
        first, second = (getattr(person, name) for person in found.persons)
        assert [first, second] == pytest.approx(weigh(evidence, powers).tolist(), abs=1e-6)
        assert 1 > first > 2 * second > 0, name


def test_powers_of_what_speaks_for_a_person() -> None:
    evidence = Evidence(*(np.array([value, 1.0]) for value in (0.5, 0.9, 0.8, 0.7, 0.6)))
    powers = (1.0, 2.0, 0.5, 0.0, 3.0)
    wanted = 0.5 * 0.9**2 * 0.8**0.5 * 0.6**3
    assert weigh(evidence, powers) == pytest.approx([wanted, 1.0])


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_run_lengths_are_what_pycocotools_reads(seed: int, height: int, width: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    rle = {"size": [height, width], "counts": run_lengths(mask)}
    assert (rle_tools.decode(rle_tools.frPyObjects(rle, height, width)) == mask).all()
