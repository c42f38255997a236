"""Precision lives in the file: what of it is fp16 or int8, and that the answers stay the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import typer
from onnx import TensorProto, numpy_helper

from kdc_core.codec.grid import Letterbox
from kdc_core.commands import export
from kdc_core.config_file import load_preset
from kdc_core.errors import KdcError
from kdc_core.inference.check import check_program
from kdc_core.inference.compare import Difference
from kdc_core.inference.export import (
    change_precision,
    cut_before_decode,
    export_onnx,
    save_program,
    write_ap_loss,
)
from kdc_core.inference.manifest import (
    KEY,
    FrameError,
    ManifestError,
    field_names,
    parse_manifest,
    read_manifest,
)
from kdc_core.inference.model_files import MODELS
from kdc_core.inference.onnx_file import why_not_run
from kdc_core.inference.precision import fold_batch_norms, network_nodes, to_fp16
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.quantize import HIGHEST_PRICE, to_int8, training_frames
from kdc_core.inference.runtimes.onnxruntime import OnnxRuntime, Session
from kdc_core.inference.selftest import self_test
from kdc_core.network.weights import load_model, save_model

from .commands import assert_refused, kdc
from .test_parity import ALLOWED

KEPT = "mask_ap_keypoint_persons"
PROGRAM, WEIGHTS = MODELS / "kdc_light.onnx", MODELS / "kdc_light.safetensors"
MAPS = field_names(load_preset("kdc_light"))


@pytest.fixture
def program() -> onnx.ModelProto:
    return onnx.load(PROGRAM)


def run(model: onnx.ModelProto, frame: np.ndarray) -> list[np.ndarray]:
    found: list[np.ndarray] = Session(model.SerializeToString(), 1).run(None, {"frame": frame})
    return found


@pytest.fixture(scope="module")
def frames(samples: Path) -> list[np.ndarray]:
    return list(training_frames(samples, load_preset("kdc_light"), (256, 320)))


def types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.input)}
    return found | {tensor.name: tensor.data_type for tensor in inferred.initializer}


# fp16


def test_the_network_is_fp16_and_nothing_else(program: onnx.ModelProto) -> None:
    network = {node.name for node in network_nodes(program, MAPS)}
    assert len(network) > 300
    model = to_fp16(program, MAPS)
    kinds = types(model)
    for node in model.graph.node:
        inputs = {kinds[name] for name in node.input if name in kinds}
        if node.op_type == "Conv" or (node.op_type == "Relu" and node.name in network):
            assert inputs == {TensorProto.FLOAT16}, node.name
        elif node.op_type in ("TopK", "MatMul", "Exp", "GatherElements"):
            assert TensorProto.FLOAT16 not in inputs, node.name
    assert all(kinds[name] == TensorProto.FLOAT for name in MAPS)
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    assert largest.data_type == TensorProto.FLOAT16


def test_folded_batch_norms_give_the_same_maps(
    program: onnx.ModelProto, frames: list[np.ndarray]
) -> None:
    before = run(cut_before_decode(PROGRAM), frames[0])
    fold_batch_norms(program)
    assert not any(node.op_type == "BatchNormalization" for node in program.graph.node)
    after = run(onnx.utils.Extractor(program).extract_model(["frame"], MAPS), frames[0])
    for one, other in zip(before, after, strict=True):
        assert np.abs(one - other).max() < 1e-3 * one.std()


@pytest.mark.parametrize(
    ("precision", "most_bytes", "within_px"), [("fp16", 11e6, 0.1), ("int8-cpu", 7e6, 3.0)]
)
def test_the_shipped_programs_are_those_of_the_shipped_weights(
    precision: str, most_bytes: float, within_px: float
) -> None:
    path = MODELS / f"kdc_light.{precision}.onnx"
    manifest, whole = read_manifest(path), read_manifest(PROGRAM)
    assert path.stat().st_size < most_bytes
    assert manifest.precision == precision and manifest.weights_sha256 == whole.weights_sha256
    assert manifest.config == whole.config
    difference = self_test(OnnxRuntime(path, "cpu", 1))
    assert difference.people == 4 and difference.keypoint_px < within_px


# int8


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped network at one level: half the program to export."""
    network, provenance = load_model(WEIGHTS)
    decode = network.config.decode.model_copy(update={"pyramid": [1]})
    network.config = network.config.model_copy(update={"decode": decode})
    path = tmp_path_factory.mktemp("weights") / "m.safetensors"
    save_model(network, path, provenance)
    return path


@pytest.fixture(scope="module")
def one_level(weights: Path) -> Path:
    path = weights.with_suffix(".onnx")
    export_onnx(weights, path)
    return path


@pytest.mark.all
@pytest.mark.parametrize(
    ("precision", "kind", "most"),
    [("int8-cpu", TensorProto.UINT8, 63), ("int8-trt", TensorProto.INT8, 127)],
)
def test_int8_is_written_in_both_dialects(
    one_level: Path,
    frames: list[np.ndarray],
    precision: str,
    kind: int,
    most: int,
    tmp_path: Path,
) -> None:
    manifest = read_manifest(one_level)
    maps = field_names(manifest.config)
    model = to_int8(onnx.load(one_level), maps, precision, frames[:4])
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    quantized = [
        n for n in model.graph.node if n.op_type == "Conv" and n.input[1].endswith("int8")
    ]
    assert len(quantized) > 60
    assert all(values[n.input[2]].data_type == TensorProto.FLOAT for n in quantized)
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            zero = values[node.input[2]]
            assert zero.data_type == kind
            assert kind == TensorProto.UINT8 or not numpy_helper.to_array(zero).any()
        if node.op_type == "DequantizeLinear" and node.input[0] in values:
            weights = numpy_helper.to_array(values[node.input[0]])
            assert weights.dtype == np.int8 and np.abs(weights.astype(int)).max() == most
    save_program(model, manifest.model_copy(update={"precision": precision}), tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").stat().st_size < 8e6
    worst = Difference()
    for _, difference in check_program(tmp_path / "m.onnx", one_level):
        worst |= difference
    assert worst.people >= 20 and worst.missed + worst.extra <= 2 and worst.mask_iou > 0.8


@pytest.mark.all
def test_what_costs_the_maps_most_stays_in_fp32(
    one_level: Path, frames: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an image that nobody looked at, for the choice of convolutions."""
    maps = field_names(read_manifest(one_level).config)
    whole = run(cut_before_decode(one_level), frames[5])
    worst = {}
    for price in (HIGHEST_PRICE, np.inf):
        monkeypatch.setattr("kdc_core.inference.quantize.HIGHEST_PRICE", price)
        model = to_int8(onnx.load(one_level), maps, "int8-cpu", frames[:4])
        found = run(onnx.utils.Extractor(model).extract_model(["frame"], maps), frames[5])
        changes = [np.square(a - b).mean() / a.var() for a, b in zip(whole, found, strict=True)]
        worst[price] = max(changes)
    assert worst[HIGHEST_PRICE] < 0.03 < 0.1 < worst[np.inf]


def test_int8_needs_images(program: onnx.ModelProto) -> None:
    with pytest.raises(KdcError, match="int8 needs training images"):
        to_int8(program, MAPS, "int8-cpu", [])


@pytest.mark.parametrize("count", [3, 5, 8, 20])
def test_training_frames_come_from_the_whole_data_set(count: int, data_set: Path) -> None:
    """Of fewer than twice as many images, too: the first alone may all be of one place."""
    config = load_preset("kdc_light")
    every = list(training_frames(data_set, config))
    taken = list(training_frames(data_set, config, count=count))
    assert len(taken) == min(count, len(every))
    assert (taken[0] == every[0]).all() and (taken[-1] == every[-1]).all()


def test_training_frames_are_of_the_size_asked_for(data_set: Path) -> None:
    config = load_preset("kdc_light")
    fixed = list(training_frames(data_set, config, (256, 320), count=3))
    assert [frame.shape for frame in fixed] == [(256, 320, 3)] * 3
    free = list(training_frames(data_set, config))
    assert all(max(frame.shape) == 576 for frame in free)


# Export


@pytest.mark.all
def test_a_program_of_one_size_says_so_and_takes_no_other(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    export_onnx(weights, tmp_path / "fp32.onnx", (256, 320))
    change_precision(tmp_path / "fp32.onnx", path, "fp16")
    manifest = read_manifest(path)
    assert manifest.size == (256, 320) and manifest.precision == "fp16"
    assert not any(
        d.dim_param for v in onnx.load(path).graph.output for d in v.type.tensor_type.shape.dim
    )
    assert {node.op_type for node in onnx.load(path).graph.node} <= set(ALLOWED)
    predictor = Predictor.from_pretrained(str(path), "onnxruntime")
    assert len(predictor(np.zeros((480, 640, 3), np.uint8))) == 0
    with pytest.raises(FrameError, match="takes frames of 256 x 320 alone, got 320 x 320"):
        predictor.runtime.submit(np.zeros((320, 320, 3), np.uint8)).collect()
    with pytest.raises(FrameError, match="250 x 320 does not fit"):
        export_onnx(weights, path, size=(250, 320))
    write_ap_loss(path, 0.0123)
    assert read_manifest(path).ap_loss == 0.0123
    worst = Difference()
    for _, difference in check_program(path, weights):
        worst |= difference
    assert worst.people >= 10 and worst.missed == worst.extra == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--precision", "int8-cpu"), "int8 needs training images"),
        (("--precision", "fp16", "--calibrate", "data"), "nothing else needs them"),
        (("--precision", "int4"), "int4"),
        (("--size", "448"), "HEIGHTxWIDTH"),
    ],
)
def test_export_refuses_what_does_not_go_together(
    options: tuple[str, ...], text: str, tmp_path: Path
) -> None:
    assert_refused(kdc("export", "kdc_light", "--output", tmp_path / "m.onnx", *options), text)


@pytest.mark.parametrize("split", [True, False])
def test_export_measures_what_int8_loses_on_validation_images(
    split: bool, data_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(model: Path, output: Path, *_: object) -> None:
        shutil.copy(PROGRAM, output)

    def change(program: Path, output: Path, precision: str, *_: object) -> None:
        manifest = read_manifest(program).model_copy(update={"precision": precision})
        save_program(onnx.load(program), manifest, output)

    monkeypatch.setattr("kdc_core.inference.export.export_onnx", export)
    monkeypatch.setattr("kdc_core.inference.export.change_precision", change)
    monkeypatch.setattr("kdc_core.inference.check.check_program", lambda program, model: ())
    content = json.loads(data_set.read_text())
    data_set.with_name("train.json").write_text(json.dumps(content))
    data_set.with_name("few").rename(data_set.with_name("train"))
    data: Path = data_set.with_name("train.json")
    if split:
        content["images"] = content["images"][:1]
        data_set.with_name("val.json").write_text(json.dumps(content))
        data_set.with_name("val").symlink_to("train")
        data = data_set.parent
    to = ("--output", tmp_path / "m.onnx", "--precision", "int8-cpu", "--calibrate", data)
    done = kdc("export", "kdc_light", *to)
    assert done.returncode == 0, done.stderr
    said = "keypoint AP on" if split else "has no validation images"
    assert said in done.stdout
    assert read_manifest(tmp_path / "m.onnx").ap_loss == (0.0 if split else None)


def test_a_loss_on_images_that_cannot_be_read_is_none(
    data_set: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train", "val"):
        data_set.with_name(f"{name}.json").write_text(data_set.read_text())
    data_set.with_name("train").symlink_to("few")
    data_set.with_name("val").mkdir()
    monkeypatch.setattr("kdc_core.inference.export.write_ap_loss", pytest.fail)
    with pytest.raises(typer.Exit):
        export._measure_loss(str(data_set.parent), PROGRAM, PROGRAM)
    assert "is not measured without these images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "after", "loss"),
    [
        ({"keypoint_ap": 0.5, KEPT: 0.4}, {"keypoint_ap": 0.49, KEPT: 0.37}, 0.03),
        ({"keypoint_ap": 0.5, KEPT: -1.0}, {"keypoint_ap": 0.49, KEPT: -1.0}, 0.01),
        ({"keypoint_ap": 0.5}, {"keypoint_ap": 0.52}, -0.02),
        ({"keypoint_ap": -1.0}, {"keypoint_ap": -1.0}, None),
    ],
)
def test_the_loss_is_that_of_what_loses_most(
    before: dict[str, float],
    after: dict[str, float],
    loss: float | None,
    data_set: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("train", "val"):
        data_set.with_name(f"{name}.json").write_text(data_set.read_text())
        data_set.with_name(name).symlink_to("few")
    written: list[float] = []
    figures = iter((before, after))

    def by_predictor(*others: object) -> SimpleNamespace:
        done = SimpleNamespace(figures=next(figures), failed=[])
        return SimpleNamespace(evaluate=lambda *_, **__: done)

    monkeypatch.setattr(export, "by_predictor", by_predictor)
    monkeypatch.setattr(
        "kdc_core.inference.export.write_ap_loss", lambda path, value: written.append(value)
    )
    export._measure_loss(str(data_set.parent), PROGRAM, PROGRAM)
    assert written == ([] if loss is None else [pytest.approx(loss)])


# Manifests


def test_a_manifest_without_precision_is_of_fp32() -> None:
    later = {"precision", "size", "ap_loss"}
    first = {**read_manifest(PROGRAM).model_dump(mode="json", exclude=later), "schema_number": 1}
    manifest = parse_manifest({KEY: json.dumps(first)}, "m.onnx")
    assert (manifest.precision, manifest.size, manifest.ap_loss) == ("fp32", None, None)
    newer = manifest.model_copy(update={"schema_number": 99}).model_dump_json()
    with pytest.raises(ManifestError, match="another version"):
        parse_manifest({KEY: newer}, "m.onnx")
    more = manifest.model_dump(mode="json")
    more["config"]["decode"]["later"] = 1
    with pytest.raises(ManifestError, match=r"version.*config\.decode\.later: no such setting"):
        parse_manifest({KEY: json.dumps(more)}, "m.onnx")
    for size in ((-1, 448), (0, 0), (448, 3_200_000)):
        none = manifest.model_copy(update={"size": size}).model_dump_json()
        with pytest.raises(ManifestError, match="greater than 0|less than or equal to 4096"):
            parse_manifest({KEY: none}, "m.onnx")


def _broken(whole: bytes) -> Iterator[bytes]:
    yield whole[: len(whole) // 2]
    yield whole[:-1]
    yield b"no model\n" * 99
    yield b"\x80" * 99
    yield b"\x0a\xff\xff\xff\xff\x0f"
    # An entry of metadata that gives a number where its length would stand.
    yield b"\x72\x0a\x08" + b"\x80" * 8 + b"\x40"


@pytest.mark.parametrize("provenance", [5, [], {"keypoints": 5}])
def test_another_skeleton_is_named_whatever_else_a_manifest_says(provenance: Any) -> None:
    content = read_manifest(PROGRAM).model_dump(mode="json") | {"provenance": provenance}
    content["config"]["fields"]["skeleton"] = "hand21"
    with pytest.raises(ManifestError, match="'m.onnx' has another skeleton"):
        parse_manifest({KEY: json.dumps(content)}, "m.onnx")


def test_why_a_file_cannot_be_run_is_told_of_a_broken_one_too(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    operators = (b"\x42\x02\x0a\xff", b"\x42\x04\x0a\x02\xff\xff")
    for content in (*_broken(PROGRAM.read_bytes()), *operators):
        path.write_bytes(content)
        assert "which says: no." in why_not_run(path, "a library", ValueError("no"))


def test_the_manifest_of_a_broken_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    for content in _broken(PROGRAM.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ManifestError, match="m.onnx' is not an ONNX file that can be run"):
            read_manifest(path)
    path.write_bytes(b"")
    with pytest.raises(ManifestError, match="not a KDC program"):
        read_manifest(path)
    with pytest.raises(ManifestError, match="cannot read"):
        read_manifest(tmp_path / "none.onnx")


def test_a_frame_of_one_size_holds_any_image() -> None:
    for image in ((480, 640), (1, 4000), (4000, 1), (256, 320), (33, 31)):
        letterbox = Letterbox.into(image, (256, 320))
        assert letterbox.size == (256, 320)
        assert 1 <= letterbox.content[0] <= 256 and 1 <= letterbox.content[1] <= 320
        corners = np.array([(-0.5, -0.5), (image[1] - 0.5, image[0] - 0.5)])
        inside = letterbox.to_network(corners)
        assert inside == pytest.approx(np.array([(0, 0), letterbox.content[::-1]]) - 0.5)
