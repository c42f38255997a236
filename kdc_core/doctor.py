"""What is installed, and what will run."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
from pathlib import Path

import kdc_core
from kdc_core.errors import KdcError

PACKAGES = (
    "numpy",
    "opencv-python",
    "scipy",
    "onnxruntime",
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
    for package in PACKAGES:
        try:
            rows.append((package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            rows.append((package, "not installed"))
    rows.append(("ROS", _ros()))
    rows.append(("GPU", _gpu()))
    for runtime in ("onnxruntime", "torch"):
        rows.append((f"runtime {runtime}", _try_runtime(runtime)))
    return rows


def _ros() -> str:
    try:
        importlib.import_module("rclpy")
    except ImportError as error:
        return f"rclpy cannot be imported: {error}"
    return f"rclpy works, ROS_DISTRO {os.environ.get('ROS_DISTRO', 'not set')}"


def _gpu() -> str:
    driver = Path("/proc/driver/nvidia/version")
    if driver.exists():
        return driver.read_text().splitlines()[0]
    return "no NVIDIA driver"


def _try_runtime(runtime: str) -> str:
    """Open the shipped model and predict one empty image."""
    import numpy as np

    from kdc_core.inference.predictor import Predictor

    try:
        predictor = Predictor.from_pretrained("kdc_light", runtime=runtime)
        prediction = predictor(np.zeros((480, 640, 3), np.uint8))
    except (KdcError, ImportError) as error:
        return f"cannot be used: {error}"
    about = predictor.runtime.describe()
    first = f"first image {prediction.timings_ms['model']:.0f} ms"
    return f"works on {about['device']} ({about['runtime_version']}); {first}"
