"""The examples, run as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest

from kdc_core.data.images import Images
from kdc_ros import env

EXAMPLES = Path(__file__).parents[1] / "examples"
SAMPLES = Path(str(files("kdc_core") / "samples"))
IMAGE = "000000000885.jpg"
TIMEOUT_S = 60.0


def run(example: str, *arguments: object, cwd: Path) -> str:
    """Run an example to its end, in a folder; what it printed."""
    command = [sys.executable, str(EXAMPLES / example), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_image(tmp_path: Path) -> None:
    printed = run("predict_image.py", SAMPLES / IMAGE, "people.jpg", cwd=tmp_path)
    assert "person 1: score" in printed and "nose" in printed
    assert "people cover" in printed
    image, drawn = Images(SAMPLES).read(IMAGE), Images(tmp_path).read("people.jpg")
    assert drawn.shape == image.shape
    # The overlay covers the people, and the colors of the rest are not swapped.
    changed = np.abs(drawn.astype(int) - image).max(2) > 40
    assert 0.02 < changed.mean() < 0.3


def test_a_video(tmp_path: Path) -> None:
    clip = SAMPLES / "people.mp4"
    printed = run("predict_video.py", clip, "out.mp4", "--frames", 3, cwd=tmp_path)
    assert "frame 2: 1 people" in printed and "frame 3" not in printed
    video = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 3
    assert video.get(cv2.CAP_PROP_FRAME_WIDTH) == 640
    assert video.get(cv2.CAP_PROP_FRAME_HEIGHT) == 360


@pytest.mark.slow
@pytest.mark.all
def test_a_data_set_of_ones_own(tmp_path: Path) -> None:
    images, output = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for path in sorted(SAMPLES.glob("*.jpg"))[:2]:
        (images / path.name).write_bytes(path.read_bytes())
    printed = run("own_dataset.py", images, output, cwd=tmp_path)
    assert "call again" in printed and not (output / "run").exists()
    drafted = json.loads((output / "data" / "annotations.json").read_text())
    assert len(drafted["images"]) == 2 and len(drafted["annotations"]) >= 5
    assert (output / "sheet.jpg").is_file()

    few = ["train.steps=2", "train.batch=2", "train.crop=128", "train.workers=0"]
    options = [part for setting in few for part in ("--set", setting)]
    printed = run("own_dataset.py", images, output, *options, cwd=tmp_path)
    assert printed.count(" people\n") == 2 and "kdc export" in printed
    assert (output / "run" / "model.safetensors").is_file()


@pytest.fixture
def ros(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A namespace of this test's own; what ROS finds in the environment is undone with it."""
    pytest.importorskip("rclpy")
    for name in ("AMENT_PREFIX_PATH", env.FASTDDS_2, env.FASTDDS_3):
        known = os.environ.get(name)
        monkeypatch.setenv(name, known or "")
        if known is None:
            del os.environ[name]
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "ros_log"))
    env.prepare()
    return f"/examples_{os.getpid()}"


@pytest.mark.ros
def test_a_subscriber_of_a_running_node(ros: str, tmp_path: Path) -> None:
    from kdc_ros.camera import Camera, node_process

    arguments = ["--ros-args", "-r", f"__ns:={ros}"]
    command = [sys.executable, "-u", str(EXAMPLES / "subscriber_node.py"), *arguments]
    log = tmp_path / "printed.txt"
    with open(log, "w") as out, node_process(*arguments[1:], log=tmp_path / "node.txt"):
        subscriber = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        camera = Camera(namespace=ros)
        try:
            camera.wait_for_node()
            image = camera.image(Images(SAMPLES).read(IMAGE))
            end = time.monotonic() + TIMEOUT_S
            while "person 1: nose (" not in log.read_text():
                assert time.monotonic() < end, f"nobody printed within {TIMEOUT_S} s"
                camera.ask(image)
        finally:
            camera.close()
            subscriber.send_signal(signal.SIGINT)
            subscriber.wait(TIMEOUT_S)
    assert subscriber.returncode == 0, log.read_text()
    # The image was asked for about again until it was printed: one line of each answer is enough.
    stamp = image.header.stamp
    assert f"{stamp.sec}.{stamp.nanosec:09d} camera: " in log.read_text()
