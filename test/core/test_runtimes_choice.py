"""Which runtime is taken, of which file, and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import pytest

from kdc_core.inference import model_files
from kdc_core.inference.manifest import Precision, read_manifest
from kdc_core.inference.model_files import MODELS, find_program
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.runtimes import choice
from kdc_core.inference.runtimes.choice import choose_runtime, order
from kdc_core.inference.runtimes.protocol import Runtime, UnusableRuntime
from kdc_core.inference.selftest import SelfTestFailed

from .conftest import PROGRAM

ORDER = order(one_size=False)


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


def test_auto_takes_fp16_with_tensorrt_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened(("tensorrt", "tensorrt-rtx", "onnxruntime-cuda"), monkeypatch)
    chosen = choose_runtime("kdc_light")
    assert [file for name, file in opened.tried if name == "tensorrt"] == [
        "kdc_light.fp16.onnx",
        "kdc_light.onnx",
    ]
    assert opened.tried[-1] == ("onnxruntime", "kdc_light.onnx")
    assert list(chosen.refused) == ["tensorrt", "tensorrt-rtx", "onnxruntime-cuda"]


def test_a_runtime_that_is_refused_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    def fail(runtime: Runtime, *_: object) -> NoReturn:
        monkeypatch.setattr(runtime, "close", lambda: closed.append(runtime.name))
        raise SelfTestFailed("nobody found")

    monkeypatch.setattr(choice, "self_test", fail)
    with pytest.raises(UnusableRuntime, match="nobody found"):
        choose_runtime("kdc_light", "onnxruntime")
    assert closed == ["onnxruntime"]
