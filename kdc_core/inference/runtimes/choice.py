"""Which model file and which runtime are meant by what a user names."""

from __future__ import annotations

import os
from pathlib import Path

from kdc_core.inference.runtimes.onnxruntime import OnnxRuntime
from kdc_core.inference.runtimes.protocol import Runtime, UnusableRuntime
from kdc_core.inference.runtimes.torch import TorchRuntime

MODELS = Path(__file__).parents[2] / "models"


def default_threads() -> int:
    """CPU threads used unless told otherwise: the cores this process may use, at most 4."""
    return max(1, min(4, len(os.sched_getaffinity(0))))


def find_model(model: str, suffixes: tuple[str, ...]) -> Path:
    """Find a model by name (shipped with the package) or by path.

    Args:
        model: name such as `kdc_light`, or a file.
        suffixes: endings to look for, in order, when a name is given.

    Raises:
        UnusableRuntime: there is no such model.
    """
    if Path(model).suffix in (".onnx", ".safetensors") or "/" in model:
        if Path(model).is_file():
            return Path(model)
        raise UnusableRuntime(f"no model file '{model}'")
    for suffix in suffixes:
        path = MODELS / f"{model}{suffix}"
        if path.is_file():
            return path
    known = ", ".join(sorted({p.stem for p in MODELS.glob("*.onnx")})) or "none"
    raise UnusableRuntime(
        f"no model '{model}' with {' or '.join(suffixes)}: expected a file, or one of the "
        f"shipped models ({known})"
    )


def open_runtime(
    model: str, runtime: str = "auto", device: str = "auto", threads: int | None = None
) -> Runtime:
    """Open a model with the runtime asked for, or with the first that fits it.

    `auto` takes ONNX Runtime for a name or an .onnx file and torch for a .safetensors file or
    a CUDA device. A runtime named explicitly never falls back to another.

    Args:
        model: shipped model's name, or an .onnx or .safetensors file.
        runtime: `auto`, `onnxruntime` or `torch`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: CPU threads; None = default_threads().

    Raises:
        UnusableRuntime: it cannot be had here; ManifestError, ModelFileError: a wrong file.
    """
    count = threads or default_threads()
    if runtime == "auto":
        wants_torch = Path(model).suffix == ".safetensors" or device.startswith("cuda")
        runtime = "torch" if wants_torch else "onnxruntime"
    if runtime == "onnxruntime":
        return OnnxRuntime(find_model(model, (".onnx",)), device, count)
    if runtime == "torch":
        return TorchRuntime.open(find_model(model, (".safetensors",)), device, count)
    raise UnusableRuntime(f"no runtime '{runtime}': expected auto, onnxruntime or torch")
