"""Which runtime is meant by what a user names, or is the best one here."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kdc_core.inference.engine.lock import ignore
from kdc_core.inference.manifest import ManifestError, Precision, read_manifest
from kdc_core.inference.model_files import files_to_try, find_model
from kdc_core.inference.runtimes.onnxruntime import OnnxRuntime
from kdc_core.inference.runtimes.openvino import OpenVinoRuntime
from kdc_core.inference.runtimes.protocol import Runtime, UnusableRuntime
from kdc_core.inference.runtimes.threads import default_threads
from kdc_core.inference.runtimes.torch import TorchRuntime
from kdc_core.inference.selftest import self_test

if TYPE_CHECKING:
    from kdc_core.inference.engine.cache import Cache
    from kdc_core.inference.engine.library import Family

TENSORRT = ("tensorrt", "tensorrt-rtx")
GPU = (*TENSORRT, "onnxruntime-cuda", "onnxruntime-tensorrt")
CPU = ("onnxruntime", "openvino")
RUNTIMES = (*GPU, *CPU, "torch")
CPUINFO = Path("/proc/cpuinfo")
# Flags in CPUINFO of processors on which OpenVINO is ahead of ONNX Runtime (`kdc bench runtimes`)
# on frames of one size, for which it compiles a program of its own: in fp32, and in int8 any.
AHEAD = "avx512f"
AHEAD_IN_INT8 = (AHEAD, "avx_vnni")


@dataclass(frozen=True)
class Choice:
    """A runtime, and why it is that one.

    Attributes:
        runtime: opened and tested.
        refused: why what comes before it cannot be used, by name, in the order it was tried.
    """

    runtime: Runtime
    refused: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """What is asked of whichever runtime it will be; as for `choose_runtime`."""

    device: str
    threads: int
    size: tuple[int, int] | None
    engines: Cache | None


def choose_runtime(
    model: str,
    runtime: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    precision: Precision | Literal["auto"] = "auto",
    size: tuple[int, int] | None = None,
    engines: Cache | None = None,
    one_size: bool = False,
) -> Choice:
    """Open a model with the runtime asked for, or with the first of `order` that can be used here.

    Each is tested on known images before it is taken (`self_test`). A runtime named explicitly
    never falls back to another.

    Args:
        model: shipped model's name, or an .onnx or .safetensors file.
        runtime: `auto` or one of RUNTIMES.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: CPU threads; None = default_threads().
        precision: of the network; `auto` takes a file as it is, of a name what FASTER says for
            the runtime, else fp32.
        size: (H, W) of the frames to come, if known.
        engines: where TensorRT's engines are kept, and whether they may be built; None = in the
            user's cache folder, and they may.
        one_size: whether all frames will be of one size, also where it is not known yet.

    Raises:
        UnusableRuntime: it cannot be had here.
        ManifestError, ModelFileError: not a file of ours.
        FrameError: no frames of that size fit the model.
        BuildCancelled: by `cancelled` of the engines' cache.
    """
    if runtime not in ("auto", *RUNTIMES):
        raise UnusableRuntime(f"no runtime '{runtime}': expected auto, {', '.join(RUNTIMES)}")
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", device):
        raise UnusableRuntime(f"no device '{device}': expected auto, cpu, cuda or cuda:N")
    find_model(model, (".onnx", ".safetensors"))  # else every runtime would say that there is none
    request = Request(device, threads or default_threads(), size, engines)
    names: tuple[str, ...] = (runtime,)
    if runtime == "auto":
        names = order(one_size or size is not None, _is_int8(model, precision))
    return _first_of(names, model, precision, request)


def _first_of(
    names: tuple[str, ...], model: str, precision: Precision | Literal["auto"], request: Request
) -> Choice:
    """Open the first runtime that can be used.

    Raises:
        UnusableRuntime: none can. Others as `choose_runtime`.
    """
    refused: dict[str, str] = {}
    error: UnusableRuntime | ManifestError | None = None
    for place, name in enumerate(names):
        rest = names[place + 1 :]
        # Frames of sizes that a runtime turns out not to serve go to the next one.
        otherwise = partial(_first_of, rest, model, precision, request) if rest else None
        tried: dict[str, str] = {}
        try:
            for title, path in files_to_try(model, name, precision):
                try:
                    return Choice(_open(name, path, request, otherwise), refused | tried)
                except UnusableRuntime as refusal:
                    tried[title], error = str(refusal), refusal
                except ManifestError as refusal:
                    if title == name:  # the file that was asked for
                        raise
                    tried[title], error = str(refusal), refusal
        except UnusableRuntime as refusal:
            tried[name], error = str(refusal), refusal
        alike = len(set(tried.values())) == 1  # nothing that the file could help
        refused |= {name: str(error)} if alike else tried
    if len(names) == 1 and error is not None:
        raise error
    reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
    raise UnusableRuntime(f"no runtime can execute '{model}' here. {reasons}")


def order(one_size: bool, int8: bool = True, cpuinfo: Path = CPUINFO) -> tuple[str, ...]:
    """The order in which `auto` tries the runtimes on this processor.

    Args:
        one_size: whether all frames are of one size.
        int8: whether OpenVINO would run the model in int8.
        cpuinfo: what the kernel says of the processor.
    """
    ahead = one_size and openvino_is_ahead(int8, cpuinfo) and find_spec("openvino") is not None
    cpu = CPU[::-1] if ahead else CPU
    return (*TENSORRT, "onnxruntime-cuda", *cpu, "torch")


def openvino_is_ahead(int8: bool = True, cpuinfo: Path = CPUINFO) -> bool:
    """Whether OpenVINO is the faster one on this processor, for frames of one size."""
    try:
        has = cpuinfo.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    return any(flag in has for flag in (AHEAD_IN_INT8 if int8 else (AHEAD,)))


def _is_int8(model: str, precision: Precision | Literal["auto"]) -> bool:
    """Whether OpenVINO would run a model in int8."""
    try:
        _, path = next(files_to_try(model, "openvino", precision))
        return read_manifest(path).precision == "int8-cpu"
    except (UnusableRuntime, ManifestError):  # whatever opens it says why
        return False


def _open(
    name: str, path: Path, request: Request, otherwise: Callable[[], Choice] | None
) -> Runtime:
    """Open a file with a runtime and test it.

    Args:
        name, path, request: what is asked for.
        otherwise: opens the next runtime.

    Raises:
        UnusableRuntime: one of the two fails.
    """
    if request.device == "cpu" and name in GPU:
        raise UnusableRuntime(f"{name} runs on an NVIDIA GPU, and the device asked for is cpu")
    if path.suffix == ".onnx" and request.size is not None:
        read_manifest(path).check_size(request.size)
    if name in TENSORRT:
        return _open_tensorrt(name, path, request, otherwise)
    if name == "torch":
        runtime: Runtime = TorchRuntime.open(path, request.device, request.threads)
    elif name == "openvino":
        progress = ignore if request.engines is None else request.engines.progress
        runtime = OpenVinoRuntime(path, request.device, request.threads, progress)
    else:
        runtime = OnnxRuntime(path, request.device, request.threads, name)
    try:
        if request.size is not None:
            runtime.manifest.check_size(request.size)
        if (name, runtime.describe()["device"]) != ("torch", "cpu"):  # the reference, and slow
            self_test(runtime, request.size, path)
    except BaseException:
        runtime.close()
        raise
    return runtime


def _open_tensorrt(
    name: str, path: Path, request: Request, otherwise: Callable[[], Choice] | None
) -> Runtime:
    """TensorRT tests each engine itself: they may come later, with frames of other sizes."""
    try:
        from kdc_core.inference.runtimes.tensorrt import TensorRtRuntime
    except ImportError as error:
        raise UnusableRuntime(
            f"cuda-python cannot be imported ({error}): pip install cuda-python"
        ) from error
    family: Family = "tensorrt" if name == "tensorrt" else "tensorrt-rtx"
    other = None if otherwise is None else lambda: otherwise().runtime
    return TensorRtRuntime(path, family, request.device, request.size, request.engines, other)
