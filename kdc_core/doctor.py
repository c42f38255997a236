"""What is installed, and what will run."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform

import numpy as np

import kdc_core
from kdc_core.errors import KdcError
from kdc_core.inference.engine import driver
from kdc_core.inference.predictor import Predictor
from kdc_core.inference.runtimes.choice import RUNTIMES, order

PACKAGES = (
    "numpy",
    "opencv-python",
    "scipy",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
    "cuda-python",
    "pydantic",
    "safetensors",
    "pycocotools",
    "faster-coco-eval",
    "torch",
    "lightning",
    "onnx",
    "ros-rclpy",
)


def report() -> list[tuple[str, str]]:
    """Facts about this machine and installation, as (name, value) rows for a bug report."""
    cores = len(os.sched_getaffinity(0))
    rows = [
        ("kdc", kdc_core.__version__),
        ("python", f"{platform.python_version()} on {platform.machine()}, {cores} cores"),
    ]
    versions = {package: _version(package) for package in PACKAGES}
    rows += [(package, version or "not installed") for package, version in versions.items()]
    if versions["onnxruntime"] and versions["onnxruntime-gpu"]:
        rows.append(
            ("two ONNX Runtimes", "one hides the other: pip uninstall both, then install one")
        )
    rows += [("ROS", _ros()), ("NVIDIA driver", driver.describe())]
    working = []
    for runtime in RUNTIMES:
        works, text = _try_runtime(runtime)
        working += [runtime] * works
        rows.append((f"runtime {runtime}", text))
    rows.append(("auto takes", next((r for r in order(one_size=False) if r in working), "none")))
    return rows


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _ros() -> str:
    try:
        importlib.import_module("rclpy")
    except ImportError as error:
        return f"rclpy cannot be imported: {error}"
    return f"rclpy works, ROS_DISTRO {os.environ.get('ROS_DISTRO', 'not set')}"


def _try_runtime(runtime: str) -> tuple[bool, str]:
    """Whether it runs the shipped model on an empty image, and how fast, or why not."""
    try:
        predictor = Predictor.from_pretrained("kdc_light", runtime=runtime)
        prediction = predictor(np.zeros((480, 640, 3), np.uint8))
    except (KdcError, ImportError) as error:
        return False, f"cannot be used: {error}"
    about = predictor.runtime.describe()
    first = f"first image {prediction.timings_ms['model']:.0f} ms"
    return True, f"works on {about['device']} ({about['runtime_version']}); {first}"
