"""OpenCV's wheels in one environment: which there are, and the command that mends it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from kdc_core import doctor, opencv

from .commands import assert_refused

BOTH = ("opencv-python", "opencv-python-headless")
MEND = f"pip uninstall --yes {' '.join(BOTH)} && pip install opencv-python"
DAMAGED = {
    "made for another numpy": "raise ImportError('numpy.core.multiarray failed to import')",
    "left behind by an uninstall": "",
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder that says that a second wheel is installed; the first one is, here."""
    assert version(BOTH[0])
    folder = tmp_path / "opencv_python_headless-4.9.0.80.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {BOTH[1]}\nVersion: 4.9.0.80\n"
    )
    return tmp_path


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_doctor_names_both_and_the_command(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "two OpenCVs" not in dict(doctor._packages())
    monkeypatch.syspath_prepend(str(site))
    text = dict(doctor._packages())["two OpenCVs"]
    assert text.startswith(f"{BOTH[0]} {version(BOTH[0])} and {BOTH[1]} 4.9.0.80 ")
    assert text.endswith(MEND)


@pytest.mark.parametrize("code", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("command", ["predict people.jpg", "doctor"])
def test_a_command_that_cannot_import_it_says_the_same(
    command: str, code: str, site: Path
) -> None:
    (site / "cv2.py").write_text(code)
    done = run(site, "-m", "kdc_core", *command.split())
    assert_refused(done, f"{BOTH[0]} {version(BOTH[0])} and {BOTH[1]} 4.9.0.80 overwrite")
    assert MEND in done.stderr


@pytest.mark.parametrize("code", DAMAGED.values(), ids=DAMAGED)
def test_the_library_says_the_same(code: str, site: Path) -> None:
    (site / "cv2.py").write_text(code)
    done = run(site, "-c", "from kdc_core import Predictor")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: OpenCV cannot be imported (") and last.endswith(MEND)


def test_a_single_wheel_is_installed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    text = opencv.explain(ImportError("libGL.so.1: cannot open shared object file"))
    assert text is not None and "libGL.so.1" in text
    assert "pip uninstall --yes opencv-python && pip install opencv-python" in text
    assert "apt install libgl1 libglib2.0-0" in text


def test_what_fails_of_something_else_is_not_put_on_opencv() -> None:
    assert opencv.explain(ImportError("something else")) is None
