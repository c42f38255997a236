"""vision_msgs and hri_msgs, of which there are no wheels, built for the tests."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "build_messages.py"
DEFINITIONS = Path(__file__).parent / "msgs"


def built_messages() -> Path:
    """A folder with both for Python; built on first use and kept in the environment.

    Skips where ROS is installed without them, and where there is no compiler.
    """
    try:
        rclpy = version("ros-rclpy")
    except PackageNotFoundError:
        pytest.skip("install ros-$ROS_DISTRO-vision-msgs and ros-$ROS_DISTRO-hri-msgs")
    if not shutil.which("g++") and not os.environ.get("CI"):
        pytest.skip(
            "vision_msgs and hri_msgs are not installed, and there is no g++ to build them"
        )
    sources = [TOOL, *sorted(DEFINITIONS.rglob("*.msg"))]
    text = rclpy + "".join(f"{path.name}\n{path.read_text()}" for path in sources)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    folder = Path(sys.prefix) / "test-messages" / digest
    folder.parent.mkdir(exist_ok=True)
    with open(folder.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several workers one builds
        if not folder.is_dir():
            command = [sys.executable, str(TOOL), str(DEFINITIONS), str(folder)]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    return folder
