"""The command line of the node's process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ros


def run_node(*words: str) -> subprocess.CompletedProcess[str]:
    """The process of the node, which must end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "kdc_ros.main", *words],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_tells_the_usage_and_starts_nothing(domain: int) -> None:
    done = run_node("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: kdc_node ")
    assert "--ros-args -r image:=/camera/image_raw" in done.stdout


@pytest.mark.parametrize(
    "words",
    [("--bogus",), ("bogus",), ("--ros-args", "--bogus"), ("--ros-args", "-r", "bogus")],
    ids=" ".join,
)
def test_a_word_that_is_not_known_is_named(domain: int, words: tuple[str, ...]) -> None:
    done = run_node(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert words[-1] in done.stderr
    assert "Traceback" not in done.stderr


# Of the extras of setup.py: what a robot does not install.
NOT_NEEDED = (
    *("cuda", "tensorrt_rtx", "openvino", "rosbags", "rerun", "faster_coco_eval", "pycocotools"),
    *("ray", "pyarrow", "lightning", "matplotlib", "onnx", "onnxscript", "optuna", "torch"),
)


def test_the_node_needs_no_extra() -> None:
    code = f"import sys\nfor n in {NOT_NEEDED}: sys.modules[n] = None\nimport kdc_ros.node"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_python_without_the_packages_is_named(
    domain: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "pydantic.py").write_text("raise ModuleNotFoundError('None', name='pydantic')")
    done = run_node()
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"kdc_node: 'pydantic' is not installed for {sys.executable}: activate")


def test_without_opencv_it_says_what_to_install(
    domain: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cv2.py").write_text("raise ImportError('numpy.core.multiarray failed to import')")
    path = os.pathsep.join((str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("PYTHONPATH", path)
    done = run_node()
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("kdc_node: OpenCV cannot be imported (numpy.core.multiarray ")
    assert line.endswith("pip install opencv-python")
