"""What is installed, and what will run."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

import kdc_core
from kdc_core import opencv
from kdc_core.errors import KdcError
from kdc_core.inference.engine import driver
from kdc_core.inference.engine.cache import Cache
from kdc_core.inference.engine.library import MODULES, TITLES, find_library
from kdc_core.inference.engine.lock import BuildProgress, ignore
from kdc_core.inference.engine.messages import EngineError
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.runtimes.choice import CPU, CPUINFO, RUNTIMES, openvino_is_ahead, order
from kdc_core.inference.runtimes.threads import default_threads

PACKAGES = (
    "numpy",
    "scipy",
    "opencv-python",
    "opencv-python-headless",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "torch",
    "cuda-python",
    "pydantic",
    "safetensors",
    "pycocotools",
    "faster-coco-eval",
    "lightning",
    "onnx",
    "rosbags",
    "rerun-sdk",
)
JETSON = Path("/etc/nv_tegra_release")
Rows = list[tuple[str, str]]


def report(progress: BuildProgress = ignore) -> Rows:
    """Facts about this machine and installation, as (name, value) rows for a bug report.

    Args:
        progress: told what the build of an engine does, where TensorRT needs one.
    """
    tried = {name: _try_runtime(name, progress) for name in RUNTIMES}
    working = [name for name, trial in tried.items() if trial.device]
    return [
        *_machine(),
        *_packages(),
        *_gpu(),
        *(
            (f"runtime {name}", trial.text if trial.device else f"cannot be used: {trial.text}")
            for name, trial in tried.items()
        ),
        ("auto takes", _taken(working)),
        ("for a faster one", _advice(_first(working, one_size=True), tried)),
    ]


def _machine() -> Rows:
    try:
        system = platform.freedesktop_os_release().get("PRETTY_NAME", "unknown")
    except OSError:
        system = "unknown"
    models = [line for line in _read(CPUINFO).splitlines() if line.startswith("model name")]
    processor = models[0].partition(":")[2].strip() if models else platform.machine()
    cores = len(os.sched_getaffinity(0))
    rows = [
        ("kdc", kdc_core.__version__),
        ("system", f"{system}, Linux {platform.release()}, {platform.machine()}"),
        ("processor", f"{processor}, {cores} cores, {default_threads()} threads used"),
        ("python", platform.python_version()),
    ]
    release = _read(JETSON).partition("\n")[0]
    return rows + ([("Jetson", release.strip("# "))] if release else [])


def _packages() -> Rows:
    versions = {package: _version(package) for package in PACKAGES}
    rows = [(package, version or "not installed") for package, version in versions.items()]
    if versions["onnxruntime"] and versions["onnxruntime-gpu"]:
        mend = "one hides the other: pip uninstall both, then install one"
        rows.append(("two ONNX Runtimes", f"onnxruntime and onnxruntime-gpu: {mend}"))
    if fault := opencv.two_wheels():
        rows.append(("two OpenCVs", fault))
    rows += [
        ("OpenCV", _attribute("cv2", "__version__")),
        ("ONNX Runtime has", _attribute("onnxruntime", "get_available_providers")),
        ("CUDA of torch", _attribute("torch.version", "cuda")),
        ("ROS", _ros()),
        ("cv_bridge", _attribute("kdc_ros.bridge", "describe")),
        *((f"{name}, for more topics", _importable(name)) for name in ("vision_msgs", "hri_msgs")),
    ]
    return rows


def _gpu() -> Rows:
    rows = [("NVIDIA driver", driver.describe())]
    try:
        gpu = driver.find_gpu()
        memory = f"{gpu.memory / (1 << 30):.1f} GiB"
        rows.append(("GPU", f"{gpu.name}, compute capability {gpu.capability}, {memory}"))
    except EngineError:
        pass  # the driver's row says why
    for family in MODULES:
        try:
            rows.append((TITLES[family], find_library(family).version))
        except EngineError as error:
            rows.append((TITLES[family], str(error)))
    return rows


class Trial(NamedTuple):
    """How a runtime did with the shipped model on an empty image.

    Attributes:
        device: that it ran on; None = it cannot be used.
        text: how fast it was, or why it cannot be used.
    """

    device: str | None
    text: str


def _try_runtime(runtime: str, progress: BuildProgress) -> Trial:
    try:
        engines = Cache(progress=progress)
        predictor = Predictor.from_pretrained("kdc_light", runtime=runtime, engines=engines)
        prediction = predictor(np.zeros((480, 640, 3), np.uint8))
        about = predictor.runtime.describe()
        predictor.close()
    except KdcError as error:
        return Trial(None, str(error))
    except Exception as error:  # whatever a library raises belongs into the report
        return Trial(None, f"{type(error).__name__}: {error}")
    first = f"first image {prediction.timings_ms['model']:.0f} ms"
    where = f"works on {about['device']} in {about['precision']}"
    text = f"{where} ({about['runtime_version']}); {first}"
    return Trial(about["device"], text)


def _taken(working: list[str]) -> str:
    """What `auto` takes of what works."""
    any_size, one_size = (_first(working, one_size) for one_size in (False, True))
    if any_size == one_size:
        return any_size
    return f"{any_size}; {one_size} for frames of one size, as the node has"


def _first(working: list[str], one_size: bool) -> str:
    return next((name for name in order(one_size) if name in working), "none")


def _advice(taken: str, tried: dict[str, Trial]) -> str:
    refused = {name: trial.text for name, trial in tried.items() if not trial.device}
    advice = advise(taken, refused)
    if taken in CPU and (tried["torch"].device or "").startswith("cuda"):
        return f"torch, asked for by name, uses the GPU already; or {advice}"
    return advice


def advise(taken: str, refused: dict[str, str], cpuinfo: Path = CPUINFO) -> str:
    """What to install for a faster runtime than the one taken.

    Args:
        taken: of frames of one size, by `auto`.
        refused: why other runtimes cannot be used, by name.
        cpuinfo: what the kernel says of the processor.
    """
    before = [name for name in order(one_size=True, cpuinfo=cpuinfo) if name not in CPU]
    faster = before[: before.index(taken)] if taken in before else before[:-1]
    if not faster:
        return "nothing: it is the first choice"
    if driver.module_version() is not None or JETSON.exists():
        return "; or ".join(f"{name}: {refused[name]}" for name in faster if name in refused)
    ahead = openvino_is_ahead(cpuinfo=cpuinfo)
    if ahead and taken == "onnxruntime" and find_spec("openvino") is None:
        return "pip install openvino, ahead on this processor for the node"
    return "nothing, without an NVIDIA GPU: no driver's kernel module is loaded"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _attribute(module: str, name: str) -> str:
    """An attribute of a module, or what it returns, in words; or why there is none."""
    try:
        value = getattr(importlib.import_module(module), name)
    except Exception as error:  # of compiled modules that do not fit together
        return f"cannot be imported: {error}"
    value = value() if callable(value) else value
    return ", ".join(value) if isinstance(value, list) else str(value or "none")


def _importable(module: str) -> str:
    return "installed" if find_spec(module) else "not installed"


def _ros() -> str:
    try:
        importlib.import_module("rclpy")
    except ImportError as error:
        return f"rclpy cannot be imported: {error}"
    version = _version("rclpy") or _version("ros-rclpy") or "of unknown version"
    return f"rclpy {version} works, ROS_DISTRO {os.environ.get('ROS_DISTRO', 'not set')}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
