"""ONNX Runtime's providers, of a package that has them and of one that has not."""

from __future__ import annotations

from typing import Any

import onnxruntime
import pytest

from kdc_core.inference.manifest import OUTPUTS
from kdc_core.inference.runtimes.choice import order
from kdc_core.inference.runtimes.onnxruntime import OnnxRuntime
from kdc_core.inference.runtimes.protocol import UnusableRuntime

from .conftest import PROGRAM

ORDER = order(one_size=False)


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
