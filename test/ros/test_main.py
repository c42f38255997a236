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


@pytest.mark.parametrize("name", ["pydantic", "rclpy"])
def test_a_python_without_the_packages_is_named(
    domain: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('None', name='{name}')")
    done = run_node()
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"kdc_node: '{name}' is not installed for {sys.executable}: activate")


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


def test_signals_are_caught_before_libraries_are_imported() -> None:
    script = (
        "import sys, kdc_ros.main; print(sorted({'cv2', 'numpy', 'rclpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@pytest.mark.all
@pytest.mark.parametrize(
    ("keystore", "named"),
    [("/nonexistent", "'/nonexistent/enclaves/kdc' does not exist"), ("", "KEYSTORE is not set")],
    ids=["missing", "not set"],
)
def test_an_enclave_is_passed_on_and_a_missing_keystore_named(
    domain: int, monkeypatch: pytest.MonkeyPatch, keystore: str, named: str
) -> None:
    monkeypatch.setenv("ROS_SECURITY_ENABLE", "true")
    monkeypatch.setenv("ROS_SECURITY_STRATEGY", "Enforce")
    monkeypatch.setenv("ROS_SECURITY_KEYSTORE", keystore)
    done = run_node("--ros-args", "--enclave", "/kdc")
    assert (done.returncode, done.stdout) == (2, "")
    assert named in done.stderr
    assert "Traceback" not in done.stderr


PARAMETER_FILES: dict[str, tuple[bytes, str]] = {
    "a wrong type": (b"confidence: high", "confidence: expected a decimal number"),
    "out of range": (b"max_persons: 1000000000000", "max_persons: expected a whole number"),
    "past 64 bits": (b"max_persons: 99999999999999999999999", "max_persons: expected a whole"),
    "not a number": (b"confidence: .nan", "confidence: expected a decimal number"),
    "an array": (b"model: [" + b"1, " * 2000 + b"1]", "model: expected a string"),
    "arrays in arrays": (b"model: " + b"[" * 1000 + b"]" * 1000, "'model' is not initialized"),
    "a long string": (b"runtime: " + b"x" * 10**6, "runtime: expected one of"),
    "a Python object": (
        b"model: !!python/object/apply:os.system ['false']",
        "model: expected a string",
    ),
    "an alias": (b"model: &a [*a]", "arguments that ROS does not"),
    "binary": (bytes(range(256)), "arguments that ROS does not"),
    "no YAML": (b"\t]{", "arguments that ROS does not"),
}


@pytest.mark.all
@pytest.mark.parametrize("name", PARAMETER_FILES)
def test_a_parameter_file_is_not_trusted(domain: int, tmp_path: Path, name: str) -> None:
    content, told = PARAMETER_FILES[name]
    file = tmp_path / "kdc.yaml"
    file.write_bytes(b"kdc:\n  ros__parameters:\n    " + content + b"\n")
    done = run_node("--ros-args", "-p", "autostart:=false", "--params-file", str(file))
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr) < 5000


def test_a_parameter_file_that_is_missing_is_named(domain: int, tmp_path: Path) -> None:
    done = run_node("--ros-args", "--params-file", str(tmp_path / "none.yaml"))
    assert done.returncode == 2
    assert "none.yaml" in done.stderr and "Traceback" not in done.stderr
