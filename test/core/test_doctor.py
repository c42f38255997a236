"""`kdc doctor`: what it says, and what it advises."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

from core.commands import kdc
from kdc_core import doctor
from kdc_core.doctor import Trial
from kdc_core.inference.engine import driver
from kdc_core.inference.engine.driver import Gpu
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.runtimes.choice import RUNTIMES
from kdc_core.inference.runtimes.protocol import UnusableRuntime


@pytest.fixture
def working(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runtimes that work; all others are broken."""
    names = ["onnxruntime"]

    def try_runtime(name: str, progress: object) -> Trial:
        return Trial("cpu", "works on cpu") if name in names else Trial(None, f"{name} is broken")

    monkeypatch.setattr(doctor, "_try_runtime", try_runtime)
    return names


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without an NVIDIA GPU whose processor has no AVX-512."""
    monkeypatch.setattr(driver, "module_version", lambda: None)
    monkeypatch.setattr(doctor, "JETSON", tmp_path / "absent")
    path = tmp_path / "cpuinfo"
    path.write_text("flags\t\t: fpu avx2\n")
    return path


def test_it_names_versions_runtimes_and_what_auto_takes(
    working: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Gpu(0, "NVIDIA L4", "8.9", 23 << 30)
    monkeypatch.setattr(driver, "find_gpu", lambda: gpu)
    rows = dict(doctor.report())
    versions = "numpy|OpenCV|onnxruntime|ONNX Runtime has|openvino|torch|CUDA of torch"
    other = "NVIDIA driver|TensorRT|TensorRT-RTX|ROS|system|processor|python|kdc|auto takes"
    assert set(f"{versions}|{other}|for a faster one".split("|")) <= set(rows)
    assert rows["GPU"] == "NVIDIA L4, compute capability 8.9, 23.0 GiB"
    assert "CPUExecutionProvider" in rows["ONNX Runtime has"]
    assert rows["OpenCV"][0].isdigit() and rows["numpy"][0].isdigit()
    for name in RUNTIMES:
        broken = f"cannot be used: {name} is broken"
        assert rows[f"runtime {name}"] == ("works on cpu" if name in working else broken)
    assert rows["auto takes"] == "onnxruntime"


def test_two_packages_of_onnxruntime_are_named(
    working: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = {"onnxruntime": "1.32.0"}
    monkeypatch.setattr(doctor, "_version", installed.get)
    assert "two ONNX Runtimes" not in dict(doctor.report())
    installed["onnxruntime-gpu"] = "1.32.0"
    row = dict(doctor.report())["two ONNX Runtimes"]
    assert row.startswith("onnxruntime and onnxruntime-gpu: one hides the other")


def test_a_library_that_does_not_load_is_a_row(
    working: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> ModuleType:
        raise AttributeError("_ARRAY_API not found")

    monkeypatch.setattr(importlib, "import_module", load)
    monkeypatch.setattr(doctor, "_ros", lambda: "none")
    assert dict(doctor.report())["OpenCV"] == "cannot be imported: _ARRAY_API not found"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UnusableRuntime("no such GPU"), "no such GPU"),
        (RuntimeError("cudnn"), "RuntimeError: cudnn"),
    ],
)
def test_whatever_a_runtime_raises_is_the_reason(
    error: Exception, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*others: object, **settings: object) -> NoReturn:
        raise error

    monkeypatch.setattr(Predictor, "from_pretrained", fail)
    assert dict(doctor.report())["runtime openvino"] == f"cannot be used: {text}"


def test_frames_of_one_size_may_have_a_runtime_of_their_own(
    working: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def order(one_size: bool, cpuinfo: Path | None = None) -> tuple[str, ...]:
        cpu = ("openvino", "onnxruntime") if one_size else ("onnxruntime", "openvino")
        return ("tensorrt", *cpu, "torch")

    monkeypatch.setattr(doctor, "order", order)
    working.append("openvino")
    assert dict(doctor.report())["auto takes"].startswith(
        "onnxruntime; openvino for frames of one"
    )


def test_torch_on_the_gpu_is_named_where_auto_stays_on_the_cpu(
    working: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def try_runtime(name: str, progress: object) -> Trial:
        devices = {"onnxruntime": "cpu", "torch": "cuda:0"}
        return Trial(devices.get(name), "as told")

    monkeypatch.setattr(doctor, "_try_runtime", try_runtime)
    rows = dict(doctor.report())
    assert rows["auto takes"] == "onnxruntime"
    assert rows["for a faster one"].startswith("torch, asked for by name, uses the GPU already")


REFUSED = {"tensorrt": "install it", "tensorrt-rtx": "pip install it", "onnxruntime-cuda": "why"}


def test_without_a_gpu_nothing_is_advised_but_what_is_ahead_on_this_processor(
    cpuinfo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    nothing = "nothing, without an NVIDIA GPU: no driver's kernel module is loaded"
    assert doctor.advise("onnxruntime", REFUSED, cpuinfo) == nothing
    cpuinfo.write_text("flags\t\t: fpu avx512f avx512dq\n")
    assert "pip install openvino" in doctor.advise("onnxruntime", REFUSED, cpuinfo)
    monkeypatch.setattr(doctor, "find_spec", lambda name: object())
    assert doctor.advise("onnxruntime", REFUSED, cpuinfo) == nothing


def test_with_a_gpu_each_runtime_before_says_what_it_lacks(
    cpuinfo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "module_version", lambda: "580.1")
    advice = doctor.advise("onnxruntime", REFUSED, cpuinfo)
    assert advice == (
        "tensorrt: install it; or tensorrt-rtx: pip install it; or onnxruntime-cuda: why"
    )
    assert doctor.advise("none", REFUSED, cpuinfo) == advice
    assert doctor.advise("tensorrt-rtx", REFUSED, cpuinfo) == "tensorrt: install it"
    assert doctor.advise("tensorrt", {}, cpuinfo) == "nothing: it is the first choice"


def test_each_row_is_a_line_to_paste(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("one", "long " * 60), ("other", "[brackets]\nand a second line")]
    monkeypatch.setattr(doctor, "report", lambda progress: rows)
    lines = kdc("doctor").stdout.splitlines()
    assert [line.split(maxsplit=1)[0] for line in lines] == ["one", "other"]
    assert lines[0].endswith("long") and "[brackets] and a second line" in lines[1]
