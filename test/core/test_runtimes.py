"""Which runtime is taken and why, what each refuses, and how many threads it gets."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, TypeAlias

import cv2
import numpy as np
import onnxruntime
import pytest

from kdc_core.data.images import Images
from kdc_core.inference import model_files
from kdc_core.inference.assembly import Raw
from kdc_core.inference.manifest import OUTPUTS, FrameError, Manifest, Precision, read_manifest
from kdc_core.inference.model_files import LARGEST_AP_LOSS, MODELS, find_program
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.runtimes import choice
from kdc_core.inference.runtimes.choice import choose_runtime, order
from kdc_core.inference.runtimes.onnxruntime import OnnxRuntime
from kdc_core.inference.runtimes.protocol import Pending, Runtime, UnusableRuntime
from kdc_core.inference.runtimes.threads import cpu_quota, default_threads
from kdc_core.inference.selftest import SelfTestFailed, self_test

HERE = ("onnxruntime", "openvino", "torch")
ORDER = order(one_size=False)
PROGRAM = MODELS / "kdc_light.onnx"


@pytest.fixture(scope="module", params=HERE)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    if request.param == "openvino":
        pytest.importorskip("openvino")
    return choose_runtime("kdc_light", request.param, threads=1, precision="fp32").runtime


# What runs


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


SIGNALLED = """
import os, signal, numpy as np
from kdc_core.inference.runtimes import openvino
from kdc_core.inference.runtimes.choice import choose_runtime
runtime = choose_runtime("kdc_light", "openvino", threads=1).runtime
for size in ((448, 576), (576, 448)):
    runtime.submit(np.zeros((*size, 3), np.uint8)).collect()
while runtime._programs:
    del runtime._programs[next(iter(runtime._programs))]
signal.signal(signal.SIGINT, lambda *_: print("taken", flush=True))
os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.all
def test_a_signal_after_openvino_freed_its_programs_is_taken() -> None:
    """In any order: it hands the thread that compiled stacks for signals, and takes them back."""
    pytest.importorskip("openvino")
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "taken\n"), done.stderr


@pytest.mark.all
def test_openvino_keeps_few_programs_of_one_size() -> None:
    pytest.importorskip("openvino")
    from kdc_core.inference.runtimes.openvino import OWN_PROGRAMS, OpenVinoRuntime

    opened = OpenVinoRuntime(PROGRAM, "cpu", 1)
    sizes = [(64 + 32 * i, 64) for i in range(OWN_PROGRAMS + 1)]
    for size in [*sizes, *sizes]:
        assert opened.submit(np.zeros((*size, 3), np.uint8)).collect().owner.shape == (
            size[0] // 2,
            32,
        )
    assert list(opened._programs) == [*sizes[:OWN_PROGRAMS], None]


@pytest.mark.all
def test_openvino_needs_its_file_no_more_and_tells_what_takes_long(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from kdc_core.inference.runtimes.openvino import OpenVinoRuntime

    told: list[str] = []
    path = tmp_path / "m.onnx"
    path.write_bytes(PROGRAM.read_bytes())
    opened = OpenVinoRuntime(path, "cpu", 1, lambda phase, *_: told.append(phase))
    path.write_bytes(b"cut off")
    for _ in range(2):
        opened.submit(np.zeros((96, 64, 3), np.uint8)).collect()
    assert told == ["OpenVINO's for frames of 96x64"]


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


# Which is taken


def test_weights_go_to_torch_whatever_precision_it_can_have() -> None:
    pytest.importorskip("torch", reason="needs torch")
    weights = str(MODELS / "kdc_light.safetensors")
    opened = choose_runtime(weights, precision="fp32", threads=1).runtime
    assert opened.name == "torch"
    opened.close()


def test_auto_says_why_each_faster_runtime_is_not_taken() -> None:
    chosen = choose_runtime("kdc_light", device="cpu")
    assert chosen.runtime.name == "onnxruntime"
    assert list(chosen.refused) == ["tensorrt", "tensorrt-rtx", "onnxruntime-cuda"]
    assert all("cpu" in reason for reason in chosen.refused.values())
    predictor = Predictor.from_pretrained("kdc_light", device="cpu")
    assert predictor.refused == chosen.refused


class Opened:
    """Stands in for opening runtimes: those named in `broken` cannot be had.

    Attributes:
        tried: runtime and name of the file, in turn.
    """

    def __init__(self, broken: tuple[str, ...], monkeypatch: pytest.MonkeyPatch):
        self.broken, self.tried = broken, list[tuple[str, str]]()
        monkeypatch.setattr(choice, "_open", self)

    def __call__(
        self,
        name: str,
        path: Path,
        request: choice.Request,
        otherwise: Callable[[], choice.Choice] | None,
    ) -> str:
        self.tried.append((name, path.name))
        if name in self.broken:
            raise UnusableRuntime(f"{name} is broken")
        return name


def test_auto_goes_on_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened(ORDER[:4], monkeypatch)
    chosen = choose_runtime("kdc_light")
    assert opened.tried[-1][0] == "openvino"
    assert {name for name, _ in opened.tried} == set(ORDER[:5])
    for name in ORDER[:4]:
        assert chosen.refused[name] == f"{name} is broken"


def test_openvino_is_first_where_it_is_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "find_spec", lambda name: object())
    (tmp_path / "new").write_text("flags\t\t: fpu avx2 avx512f avx512dq\n")
    (tmp_path / "small").write_text("flags\t\t: fpu avx2 avx_vnni\n")
    (tmp_path / "old").write_text("flags\t\t: fpu avx2\n")
    first = ("tensorrt", "tensorrt-rtx", "onnxruntime-cuda")
    plain, ahead = ("onnxruntime", "openvino"), ("openvino", "onnxruntime")
    for file, one_size, int8, cpu in (
        ("new", True, True, ahead),
        ("new", True, False, ahead),
        ("new", False, True, plain),
        ("small", True, True, ahead),
        ("small", True, False, plain),
        ("old", True, True, plain),
        ("none", True, True, plain),
    ):
        assert order(one_size, int8, tmp_path / file) == (*first, *cpu, "torch")
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    assert order(True, True, tmp_path / "new") == (*first, *plain, "torch")


Asked: TypeAlias = "list[tuple[bool, bool]]"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What `order` is asked for: frames of one size, and int8."""
    asked: Asked = []

    def order(one_size: bool, int8: bool) -> tuple[str, ...]:
        asked.append((one_size, int8))
        return ("onnxruntime", "torch")  # weights go to the latter

    monkeypatch.setattr(choice, "order", order)
    return asked


@pytest.mark.parametrize(
    ("model", "precision", "int8"),
    [
        ("kdc_light", "auto", True),
        ("kdc_light", "fp32", False),
        (str(MODELS / "kdc_light.int8-cpu.onnx"), "auto", True),
        (str(MODELS / "kdc_light.onnx"), "auto", False),
        (str(MODELS / "kdc_light.onnx"), "int8-cpu", True),
        (str(MODELS / "kdc_light.safetensors"), "auto", False),
    ],
)
def test_where_openvino_is_ahead_depends_on_whether_it_runs_in_int8(
    model: str, precision: Precision, int8: bool, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "_open", lambda *others: "opened")
    choose_runtime(model, precision=precision, one_size=True)
    assert asked == [(True, int8)]


def test_a_file_that_is_refused_is_named_beside_the_runtime(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(name: str, path: Path, *others: object) -> str:
        if name == "tensorrt":
            raise UnusableRuntime(f"'{path.name}' is wrong")
        return name

    monkeypatch.setattr(choice, "_open", refuse)
    assert choose_runtime("kdc_light").refused == {
        "tensorrt fp16": "'kdc_light.fp16.onnx' is wrong",
        "tensorrt": "'kdc_light.onnx' is wrong",
    }


def test_what_nothing_can_run_says_why_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    Opened(ORDER, monkeypatch)
    with pytest.raises(UnusableRuntime, match="no runtime can execute") as raised:
        choose_runtime("kdc_light")
    assert all(f"{name} is broken" in str(raised.value) for name in ORDER)


@pytest.mark.parametrize("name", choice.RUNTIMES)
def test_a_runtime_named_never_falls_back(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened((name,), monkeypatch)
    with pytest.raises(UnusableRuntime, match=f"^{name} is broken$"):
        choose_runtime("kdc_light", name)
    assert {tried for tried, _ in opened.tried} == {name}


def test_a_cuda_device_is_never_exchanged_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UnusableRuntime, match="onnxruntime runs on the CPU.*torch finds no"):
        choose_runtime("kdc_light", device="cuda")


def test_a_cuda_device_that_is_not_there_is_refused_by_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UnusableRuntime, match="'cuda:3': torch finds 1 usable CUDA device$"):
        choose_runtime("kdc_light", "torch", device="cuda:3")


def _copy(folder: Path, name: str, precision: Precision, loss: float | None = None) -> Path:
    """The shipped program, which says of itself that it is of this precision."""
    import onnx

    from kdc_core.inference.manifest import KEY

    model = onnx.load(PROGRAM)
    manifest = read_manifest(PROGRAM).model_copy(update={"precision": precision, "ap_loss": loss})
    del model.metadata_props[:]
    model.metadata_props.add(key=KEY, value=manifest.model_dump_json())
    onnx.save(model, folder / name)
    return folder / name


def test_a_precision_asked_for_is_had_or_refused(tmp_path: Path) -> None:
    half = _copy(tmp_path, "m.fp16.onnx", "fp16")
    assert find_program(str(half), "fp16") == half
    with pytest.raises(UnusableRuntime, match="m.fp16.onnx' is fp16, and there is no .*m.onnx'"):
        find_program(str(half), "fp32")
    whole = _copy(tmp_path, "m.onnx", "fp32")
    assert find_program(str(half), "fp32") == whole
    assert find_program(str(whole), "fp16") == half
    assert choose_runtime(str(half), "onnxruntime").runtime.manifest.precision == "fp16"
    with pytest.raises(UnusableRuntime, match="torch runs models in fp32"):
        choose_runtime("kdc_light", "torch", precision="fp16")


@pytest.mark.parametrize(("loss", "taken"), [(None, False), (0.02, False), (0.01, True)])
def test_auto_takes_int8_where_it_loses_little(
    loss: float | None, taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _copy(tmp_path, "m.int8-cpu.onnx", "int8-cpu", loss)
    _copy(tmp_path, "m.onnx", "fp32")
    monkeypatch.setattr(model_files, "MODELS", tmp_path)
    opened = Opened((), monkeypatch)
    choose_runtime("m", "openvino")
    assert opened.tried == [("openvino", "m.int8-cpu.onnx" if taken else "m.onnx")]


def test_why_the_first_file_is_not_taken_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, path: Path, *others: object) -> str:
        if ".int8" in path.name:
            raise UnusableRuntime("it finds nobody")
        return name

    monkeypatch.setattr(choice, "_open", refuse)
    assert choose_runtime("kdc_light", "openvino").refused == {
        "openvino int8-cpu": "it finds nobody"
    }


def test_a_damaged_faster_file_is_told_and_the_next_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    whole = (MODELS / "kdc_light.int8-cpu.onnx").read_bytes()
    (tmp_path / "m.int8-cpu.onnx").write_bytes(whole[: len(whole) // 2])
    _copy(tmp_path, "m.onnx", "fp32")
    monkeypatch.setattr(model_files, "MODELS", tmp_path)
    found = choose_runtime("m", "openvino", one_size=True)
    assert found.runtime.manifest.precision == "fp32"
    assert list(found.refused) == ["openvino int8-cpu"]
    assert "it ends at byte" in found.refused["openvino int8-cpu"]


def test_a_shipped_file_of_another_precision_than_its_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _copy(tmp_path, "m.fp16.onnx", "fp32")
    monkeypatch.setattr(model_files, "MODELS", tmp_path)
    with pytest.raises(UnusableRuntime, match="is fp32, expected fp16"):
        find_program("m", "fp16")


@pytest.mark.parametrize("said", [{"one_size": True}, {"size": (448, 576)}, {}])
def test_frames_of_one_size_are_ordered_so(said: dict[str, Any], asked: Asked) -> None:
    Predictor.from_pretrained("kdc_light", threads=1, **said).close()
    assert asked == [(bool(said), True)]


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_a_size_that_does_not_fit_is_refused_when_opening(runtime: str) -> None:
    with pytest.raises(FrameError, match="450 x 576 does not fit"):
        Predictor.from_pretrained("kdc_light", runtime, threads=1, size=(450, 576))


def test_closing_twice_does_nothing_more() -> None:
    for runtime in ("onnxruntime", "torch"):
        predictor = Predictor.from_pretrained("kdc_light", runtime, threads=1)
        predictor.close()
        predictor.close()


def test_auto_takes_fp16_with_tensorrt_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened(("tensorrt", "tensorrt-rtx", "onnxruntime-cuda"), monkeypatch)
    chosen = choose_runtime("kdc_light")
    assert [file for name, file in opened.tried if name == "tensorrt"] == [
        "kdc_light.fp16.onnx",
        "kdc_light.onnx",
    ]
    assert opened.tried[-1] == ("onnxruntime", "kdc_light.onnx")
    assert list(chosen.refused) == ["tensorrt", "tensorrt-rtx", "onnxruntime-cuda"]


# ONNX Runtime's providers, of a package that has them


class Session:
    """Stands in for onnxruntime.InferenceSession, and takes the providers it can start."""

    starts = True
    asked: list[Any] = []

    def __init__(self, model: str, options: object, providers: list[Any]):
        Session.asked = providers
        names = [entry if isinstance(entry, str) else entry[0] for entry in providers]
        self.providers = names if Session.starts else names[-1:]

    def get_providers(self) -> list[str]:
        return self.providers

    def get_inputs(self) -> list[object]:
        return [type("Input", (), {"name": "frame", "type": "tensor(uint8)"})]

    def get_outputs(self) -> list[object]:
        return [type("Output", (), {"name": name}) for name in OUTPUTS]


@pytest.fixture
def gpu_package(monkeypatch: pytest.MonkeyPatch) -> type[Session]:
    """An onnxruntime with providers for GPUs; nothing runs."""
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(Session, "starts", True)
    return Session


def test_cuda_is_asked_for_with_its_device(gpu_package: type[Session]) -> None:
    opened = OnnxRuntime(PROGRAM, "cuda:1", 2, "onnxruntime-cuda")
    provider, options = gpu_package.asked[0]
    assert provider == "CUDAExecutionProvider" and options["device_id"] == "1"
    assert options["use_tf32"] == "0"
    assert gpu_package.asked[1:] == ["CPUExecutionProvider"]
    assert opened.describe()["device"] == "cuda:1"
    assert opened.describe()["runtime"] == "onnxruntime-cuda"


def test_tensorrt_of_onnxruntime_keeps_no_engines(gpu_package: type[Session]) -> None:
    OnnxRuntime(PROGRAM, "auto", 2, "onnxruntime-tensorrt")
    (provider, options), (second, of_cuda), last = gpu_package.asked
    assert provider == "TensorrtExecutionProvider" and second == "CUDAExecutionProvider"
    assert options["trt_engine_cache_enable"] == "False" and last == "CPUExecutionProvider"
    assert of_cuda["use_tf32"] == "0"
    assert "onnxruntime-tensorrt" not in ORDER


def test_a_provider_that_does_not_start_is_no_cpu(
    gpu_package: type[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_package, "starts", False)
    with pytest.raises(UnusableRuntime, match="took CPUExecutionProvider instead"):
        OnnxRuntime(PROGRAM, "cuda", 2, "onnxruntime-cuda")


@pytest.mark.parametrize("name", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_a_package_without_the_provider_says_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(UnusableRuntime, match="install onnxruntime-gpu in its place"):
        OnnxRuntime(PROGRAM, "auto", 2, name)
    with pytest.raises(UnusableRuntime, match="got device 'cpu': expected cuda or cuda:N"):
        OnnxRuntime(PROGRAM, "cpu", 2, name)


# Self-test


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


def test_a_runtime_that_finds_everybody_passes(runtime: Runtime) -> None:
    difference = self_test(runtime)
    assert difference.people == 4 and difference.keypoint_px < 0.05 < 0.99 < difference.mask_iou


def test_openvino_takes_the_shipped_int8_file() -> None:
    pytest.importorskip("openvino")
    runtime = choose_runtime("kdc_light", "openvino", threads=1).runtime
    assert runtime.describe()["precision"] == "int8-cpu"
    loss = runtime.manifest.ap_loss
    assert loss is not None and loss <= LARGEST_AP_LOSS


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


def test_a_runtime_that_is_refused_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    def fail(runtime: Runtime, *_: object) -> NoReturn:
        monkeypatch.setattr(runtime, "close", lambda: closed.append(runtime.name))
        raise SelfTestFailed("nobody found")

    monkeypatch.setattr(choice, "self_test", fail)
    with pytest.raises(UnusableRuntime, match="nobody found"):
        choose_runtime("kdc_light", "onnxruntime")
    assert closed == ["onnxruntime"]


def test_other_weights_are_compared_with_onnxruntime(straight: Runtime) -> None:
    other = straight.manifest.model_copy(update={"weights_sha256": "of nobody"})
    assert self_test(Bent(straight, other, "0"), None, PROGRAM).people == 4
    with pytest.raises(SelfTestFailed, match="within 1.0.* px"):
        self_test(Bent(straight, other, "1"), None, PROGRAM)
    assert self_test(Bent(straight, other, "1")).people == 0


# Threads


def _machine(root: Path, group: str, files: dict[str, str]) -> Path:
    for path, text in {"proc/self/cgroup": group, **files}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


@pytest.mark.parametrize(
    ("group", "files", "quota"),
    [
        ("0::/\n", {}, math.inf),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, math.inf),
        ("0::/\n", {"sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"sys/fs/cgroup/a/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/../x\n", {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),
        (
            "0::/a/b\n",
            {
                "sys/fs/cgroup/a/cpu.max": "300000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
            },
            3.0,
        ),
        (
            "5:memory:/m\n4:cpu,cpuacct:/docker/1\n",
            {
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            2.0,
        ),
        (
            "4:cpu:/\n",
            {
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            math.inf,
        ),
    ],
)
def test_the_quota_of_control_groups(
    group: str, files: dict[str, str], quota: float, tmp_path: Path
) -> None:
    assert cpu_quota(_machine(tmp_path, group, files)) == quota


@pytest.mark.parametrize(("quota", "cores", "threads"), [(150, 8, 2), (50, 8, 1), (900, 8, 4)])
def test_threads_are_limited_by_quota_and_cores(
    quota: int, cores: int, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = _machine(tmp_path, "0::/\n", {"sys/fs/cgroup/cpu.max": f"{quota}000 100000\n"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert default_threads(root) == threads
    assert cpu_quota(tmp_path / "nothing") == math.inf
